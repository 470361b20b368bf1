import numpy as np
import pytest

from tace_al.selection.acquisition import Candidate
from tace_al.selection.fidelities import choose_expensive, difference_spread, evenly, repeated


def candidate(key: str, uncertainty: float, place: float, channel: str = "a") -> Candidate:
    return Candidate(
        key=key, channel=channel, uncertainty=uncertainty, descriptor=np.array([place, 0.0])
    )


def test_errors_that_both_heads_share_cancel() -> None:
    generator = np.random.default_rng(1)
    shared = generator.normal(size=(4, 5, 3))  # every member errs, alike on both heads
    difference = generator.normal(size=(5, 3))  # the same for all
    assert np.abs(difference_spread(shared, shared + difference)).max() < 1e-12
    own = 0.1 * generator.normal(size=(4, 5, 3))
    spread = difference_spread(shared, shared + difference + own)
    expected = np.sqrt(((own - own.mean(0)) ** 2).sum(2).mean(0))
    np.testing.assert_allclose(spread, expected, rtol=1e-9)


def test_members_that_disagree_about_one_atom_show_it() -> None:
    cheap = np.zeros((2, 3, 3))
    expensive = np.zeros((2, 3, 3))
    expensive[0, 1, 2], expensive[1, 1, 2] = 0.5, -0.5
    np.testing.assert_allclose(difference_spread(cheap, expensive), [0.0, 0.5, 0.0])


def test_forces_of_unlike_committees_are_refused() -> None:
    with pytest.raises(ValueError, match="same members"):
        difference_spread(np.zeros((3, 4, 3)), np.zeros((4, 4, 3)))


def test_what_is_known_gets_no_expensive_label() -> None:
    candidates = [candidate("sure", 0.05, 0.0), candidate("unsure", 0.5, 1.0)]
    chosen = choose_expensive(candidates, 5, low=0.1, on_path=frozenset(), covered={})
    assert chosen == ("unsure",)
    assert choose_expensive(candidates, 5, low=0.6, on_path=frozenset(), covered={}) == ()
    assert choose_expensive(candidates, 0, low=0.1, on_path=frozenset(), covered={}) == ()


def test_half_of_the_budget_is_the_path_s() -> None:
    hot = [candidate(f"hot{i}", 2.0, 10.0 + i) for i in range(6)]
    path = [candidate(f"path{i}", 0.3, float(i)) for i in range(4)]
    chosen = choose_expensive(
        [*hot, *path], 4, low=0.1, on_path=frozenset(c.key for c in path), covered={}
    )
    assert len(chosen) == len(set(chosen)) == 4
    assert sum(key.startswith("path") for key in chosen) == 2
    # a path that is known leaves its half to the others
    chosen = choose_expensive(
        [*hot, *path], 4, low=0.5, on_path=frozenset(c.key for c in path), covered={}
    )
    assert len(chosen) == 4 and all(key.startswith("hot") for key in chosen)


def test_of_two_equally_uncertain_the_one_far_from_expensive_labels_is_chosen() -> None:
    candidates = [candidate("near", 0.5, 0.1), candidate("far", 0.5, 5.0)]
    covered = {"a": np.array([[0.0, 0.0]])}
    assert choose_expensive(candidates, 1, low=0.1, on_path=frozenset(), covered=covered) == (
        "far",
    )


def test_channels_share() -> None:
    candidates = [candidate(f"a{i}", 1.0, float(i)) for i in range(5)]
    candidates += [candidate(f"b{i}", 0.2, float(i), "b") for i in range(5)]
    chosen = choose_expensive(candidates, 4, low=0.1, on_path=frozenset(), covered={})
    assert sum(key.startswith("b") for key in chosen) == 2


@pytest.mark.parametrize(("count", "number"), [(7, 3), (9, 1), (3, 3), (2, 4)])
def test_places_are_spread_evenly(count: int, number: int) -> None:
    places = evenly(count, number)
    assert len(places) == len(set(places)) == min(count, number)
    assert list(places) == sorted(places) and set(places) <= set(range(count))
    if number < count:
        steps = np.diff([-1, *places, count])
        assert steps.max() - steps.min() <= count / number


def test_the_few_are_seen_about_as_often_as_the_many() -> None:
    assert sorted(repeated([0, 1, 2, 3], [3], most=9)) == [0, 1, 2, 3, 3, 3]
    assert repeated([0, 1, 2, 3, 4, 5], [5], most=2).count(5) == 2
    assert repeated([0, 1], [], most=3) == [0, 1]
    assert repeated([0, 1, 2], [0, 1], most=3) == [0, 1, 2]  # they are not the few
    assert 7 not in repeated([0, 1], [7], most=3)  # kept aside
