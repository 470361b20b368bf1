import numpy as np
import pytest

from tace_al.selection.calibration import (
    ENERGY_FLOOR,
    FORCE_FLOOR,
    PRIOR_SCALE,
    coverage,
    energy_differences,
    fit_calibration,
    force_errors,
)


def synthetic(rng, num_structures, *, factor=2.5, shared=0.6, num_atoms=(3, 12)):
    """Errors with heavy tails that rise and fall together within a structure."""
    spreads, errors = [], []
    for _ in range(num_structures):
        count = int(rng.integers(*num_atoms))
        spread = 0.05 * np.exp(0.8 * rng.normal(size=count))
        common = np.exp(shared * rng.normal())
        spreads.append(spread)
        errors.append(factor * spread * common * np.abs(rng.standard_t(4, size=count)))
    return spreads, errors


def test_new_structures_are_covered_at_the_target_whatever_the_distribution():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(150):
        calibration = fit_calibration(*synthetic(rng, 40), target_coverage=0.9)
        assert calibration.reliable
        covered.append(coverage(*synthetic(rng, 40), calibration.scale))
    # Guarantee: at least 0.9, and at most about 1/(n + 1) more; standard error below 0.005.
    assert 0.888 < np.mean(covered) < 0.935


def test_leave_one_structure_out_coverage_is_close_to_what_new_structures_show():
    rng = np.random.default_rng(1)
    told = [fit_calibration(*synthetic(rng, 40)).coverage for _ in range(60)]
    assert abs(np.mean(told) - 0.9) < 0.02


def test_scale_of_known_scores_is_their_finite_sample_quantile():
    errors = [np.array([float(rank)]) for rank in range(1, 20)]  # 19 structures of one atom
    spreads = [np.ones(1)] * 19
    calibration = fit_calibration(spreads, errors, target_coverage=0.9)
    assert calibration.scale == 18.0  # ceil(20 * 0.9) = the 18th smallest
    assert calibration.reliable and calibration.num_structures == calibration.num_atoms == 19


def test_big_structures_do_not_outvote_small_ones():
    spreads = [np.ones(1000)] + [np.ones(1)] * 19
    errors = [np.full(1000, 0.1)] + [np.full(1, 5.0)] * 19
    assert fit_calibration(spreads, errors, target_coverage=0.5).scale == 5.0


def test_eight_structures_are_too_few_for_ninety_percent_and_nine_are_enough():
    rng = np.random.default_rng(2)
    spreads, errors = synthetic(rng, 9)
    few = fit_calibration(spreads[:8], errors[:8])
    largest = max(
        np.max(e / np.maximum(s, FORCE_FLOOR)) for s, e in zip(spreads, errors, strict=True)
    )
    assert not few.reliable and few.scale >= PRIOR_SCALE
    enough = fit_calibration(spreads, errors)
    assert enough.reliable and enough.scale == pytest.approx(largest)


def test_small_observed_scores_do_not_lower_the_prior():
    assert fit_calibration([np.ones(3)], [np.full(3, 0.1)]).scale == PRIOR_SCALE


def test_nothing_to_calibrate_on_gives_the_prior():
    calibration = fit_calibration([], [])
    assert calibration.scale == calibration.energy_scale == PRIOR_SCALE
    assert calibration.coverage is None and not calibration.reliable


def test_error_bars_never_fall_below_the_floor_and_keep_a_nan():
    calibration = fit_calibration([], [])
    assert calibration.force_error(np.zeros(1))[0] == pytest.approx(PRIOR_SCALE * FORCE_FLOOR)
    assert calibration.energy_error(0.0) == pytest.approx(PRIOR_SCALE * ENERGY_FLOOR)
    assert np.isnan(calibration.force_error(np.array([np.nan])))[0]
    assert np.isnan(calibration.energy_error(float("nan")))


def test_energy_differences_drop_constant_offsets_of_members():
    rng = np.random.default_rng(3)
    label = rng.normal(size=30)
    wrong = rng.normal(scale=0.05, size=(30, 4))
    offsets = np.array([0.0, 1.0, -3.0, 2.0])
    anchor_label = np.full(30, -7.0)
    spread, error = energy_differences(
        label[:, None] + wrong + offsets,
        label,
        np.broadcast_to(anchor_label[:, None] + offsets, (30, 4)),
        anchor_label,
    )
    assert spread == pytest.approx(wrong.std(axis=1), abs=1e-12)
    assert error == pytest.approx(np.abs(wrong.mean(axis=1)), abs=1e-12)
    calibration = fit_calibration([], [], energy_spreads=spread, energy_errors=error)
    assert calibration.energy_reliable and not calibration.reliable
    assert np.mean(error <= [calibration.energy_error(one) for one in spread]) >= 0.9


def test_force_errors_are_lengths():
    assert force_errors(np.array([[3.0, 0.0, 4.0]]), np.zeros((1, 3))) == pytest.approx([5.0])


@pytest.mark.parametrize(
    ("spreads", "errors", "words"),
    [
        ([np.ones(2)], [], "same structures"),
        ([np.ones(2)], [np.ones(3)], "structure 0"),
        ([np.ones(2)], [np.array([1.0, np.nan])], "not finite"),
    ],
)
def test_bad_calibration_sets_are_refused(spreads, errors, words):
    with pytest.raises(ValueError, match=words):
        fit_calibration(spreads, errors)


def test_target_coverage_must_be_a_share():
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_calibration([], [], target_coverage=90)
