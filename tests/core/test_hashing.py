"""Keys follow content, not history: same content same key, any change another key."""

import numpy as np
import pytest

from tace_al.core.hashing import KEY_LENGTH, content_hash, structure_hash

NUMBERS = np.array([8, 1, 1])
POSITIONS = np.array([[0.0, 0.0, 0.1], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])


def key(**changes: object) -> str:
    arguments: dict = {
        "numbers": NUMBERS,
        "positions": POSITIONS,
        "cell": np.eye(3) * 9.0,
        "pbc": np.array([True, True, False]),
        "charge": 0,
        "multiplicity": 1,
    }
    arguments.update(changes)
    return structure_hash(arguments.pop("numbers"), arguments.pop("positions"), **arguments)


def test_plain_content_has_one_key_whatever_the_order() -> None:
    assert content_hash({"b": 1, "a": [1.0, None]}) == content_hash({"a": [1.0, None], "b": 1})
    assert len(content_hash("x")) == KEY_LENGTH


def test_content_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        content_hash({"energy": float("nan")})


@pytest.mark.parametrize(
    "changes",
    [
        {"numbers": np.array([8, 1, 9])},
        {"positions": POSITIONS + 1e-6},
        {"cell": np.eye(3) * 9.1},
        {"pbc": np.array([True, False, False])},
        {"charge": 1},
        {"multiplicity": 3},
    ],
)
def test_any_physical_change_changes_the_key(changes: dict) -> None:
    assert key(**changes) != key()


def test_a_text_file_does_not_change_the_key() -> None:
    printed = np.array([[float(f"{x:.8f}") for x in row] for row in POSITIONS])
    assert key(positions=printed) == key()


def test_the_cell_of_a_direction_without_periodicity_does_not_count() -> None:
    cell = np.diag([9.0, 9.0, 20.0])
    assert key(cell=cell) == key()


def test_zero_has_no_sign() -> None:
    assert key(positions=np.where(POSITIONS == 0.0, -0.0, POSITIONS)) == key()
