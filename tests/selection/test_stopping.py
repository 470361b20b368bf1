import pytest

from tace_al.selection.stopping import GenerationOutcome, StoppingRule, TargetEstimate

RULE = StoppingRule(targets=("bare", "water"), max_labels=300, max_seconds=900.0)


def history(*values, error=0.03, check=0.0, **fields):
    """Generations whose two barriers are `value` and `value` - 0.8, labelled `check` above."""
    return [
        GenerationOutcome(
            number=number,
            targets={
                name: TargetEstimate(
                    value=value - shift,
                    error=error,
                    label_value=None if check is None else value - shift + check,
                )
                for name, shift in (("bare", 0.0), ("water", 0.8))
            },
            **fields,
        )
        for number, value in enumerate(values)
    ]


def reason(outcomes, rule=RULE, *, num_labels=10, seconds=1.0):
    return rule.reason(outcomes, num_labels=num_labels, seconds=seconds)


def test_steady_barriers_stop_the_campaign_and_are_named():
    text = reason(history(1.5, 1.80, 1.82))
    assert text is not None and text.startswith("converged: bare 1.820 ± 0.030 eV, water 1.020")


def test_moving_barriers_do_not():
    assert reason(history(1.5, 1.70, 1.82)) is None


def test_two_generations_are_too_few_even_when_they_agree():
    assert reason(history(1.82, 1.82)) is None


def test_wide_error_bars_do_not_count_as_agreement():
    assert reason(history(1.2, 1.5, 1.8, error=0.5)) is None


def test_the_labeller_must_confirm_the_saddle_point():
    assert reason(history(1.82, 1.82, 1.82, check=None)) is None
    assert reason(history(1.82, 1.82, 1.82, check=0.1)) is None
    assert reason(history(1.82, 1.82, 1.82, check=-0.02)) is not None


def test_tolerance_forgives_noise_below_tiny_error_bars():
    assert reason(history(1.82, 1.825, 1.822, error=0.0005, check=0.005)) is not None
    assert reason(history(1.82, 1.85, 1.82, 1.85, error=0.0005)) is None


def test_every_pair_in_the_window_must_agree():
    rule = StoppingRule(targets=("bare",), window=3)
    assert reason(history(1.70, 1.74, 1.78), rule) is None
    assert reason(history(1.76, 1.77, 1.78), rule) is not None


def test_one_missing_or_broken_target_keeps_it_going():
    outcomes = history(1.82, 1.82, 1.82)
    assert reason(outcomes, StoppingRule(targets=("bare", "other"))) is None
    assert reason(history(1.82, 1.82, float("nan"))) is None
    assert reason(outcomes, StoppingRule()) is None


def test_budgets_stop_it_in_any_case():
    assert reason([], num_labels=300) == "label budget spent: 300 of 300 labels"
    assert reason([], seconds=901.0) == "time budget spent: 901 of 900 s"
    assert reason([], num_labels=299) is None
    assert reason([], StoppingRule(), num_labels=10**6, seconds=1e9) is None


def test_nothing_flagged_with_good_coverage_stops_too_when_asked_for():
    rule = StoppingRule(max_flagged_share=0.01)
    calm = history(1.0, 2.0, 3.0, flagged_share=0.005, coverage=0.9)
    assert reason(calm, rule) is not None
    assert reason(history(1.0, 2.0, 3.0, flagged_share=0.005, coverage=0.6), rule) is None
    assert reason(history(1.0, 2.0, 3.0, flagged_share=0.005), rule) is None
    assert reason(calm) is None


def test_a_window_of_one_compares_nothing():
    with pytest.raises(ValueError, match="at least 2"):
        StoppingRule(window=1)


def test_targets_without_a_label_need_coverage_instead():
    rule = StoppingRule(targets=("stuck",), checked_by_label=False, min_coverage=0.85)

    def outcomes(coverage):
        one = TargetEstimate(value=0.90, error=0.02, unit="")
        return [
            GenerationOutcome(number=number, targets={"stuck": one}, coverage=coverage)
            for number in range(3)
        ]

    text = reason(outcomes(0.9), rule)
    assert text == "converged: stuck 0.900 ± 0.020, steady over 2 generations"
    assert reason(outcomes(0.7), rule) is None
    assert reason(outcomes(None), rule) is None
