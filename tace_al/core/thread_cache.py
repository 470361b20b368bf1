"""A cache for each thread, for what two threads must not share."""

import threading
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def cached_in_thread(
    maxsize: int | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator: results of a function are kept, by each thread for itself.

    Arguments of the function must be hashable; what raises is not kept.

    Parameters
    ----------
    maxsize
        How many results a thread keeps, the latest used; None for all of them.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        local = threading.local()

        @wraps(function)
        def cached(*arguments: P.args, **options: P.kwargs) -> T:
            own: Any = getattr(local, "own", None)
            if own is None:
                own = local.own = lru_cache(maxsize)(function)
            found: T = own(*arguments, **options)
            return found

        return cached

    return decorate
