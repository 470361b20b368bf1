from concurrent.futures import ThreadPoolExecutor

import pytest

from tace_al.core.thread_cache import cached_in_thread


def test_each_thread_keeps_its_own_results() -> None:
    @cached_in_thread(maxsize=2)
    def made(number: int, name: str = "a") -> list[object]:
        """Return something new."""
        return [number, name]

    first = made(1)
    assert made(1) is first and made(1, name="b") is not first
    with ThreadPoolExecutor(1) as other:
        theirs = other.submit(made, 1).result()
        assert theirs == first and theirs is not first
        assert other.submit(made, 1).result() is theirs
    assert made(1) is first
    made(2), made(3)
    assert made(1) is not first  # only the latest two are kept
    assert made.__doc__ == "Return something new."


def test_what_raises_is_tried_again() -> None:
    calls = []

    @cached_in_thread()
    def fails_once() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("not yet")
        return len(calls)

    with pytest.raises(ValueError, match="not yet"):
        fails_once()
    assert fails_once() == fails_once() == 2
