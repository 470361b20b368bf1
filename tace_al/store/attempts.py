"""One call of a verb, however often it has to be tried before the database answers.

A connection may break after the database has written and before it has said so. The call is then
tried again, and must neither write twice nor take its own writing for somebody else's. So a call
hands out the same identifiers in the same order at each try (`identifier`), and remembers what it
has made (`note`): a key that is taken by one of its own identifiers is a success.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, final

from bson import ObjectId


@final
class Call:
    """What one call of a verb has written so far, kept over its tries."""

    def __init__(self, outer: "Call | None") -> None:
        self.outer = outer
        self.tries = 1
        self.made: set[Any] = set()
        self._identifiers: list[ObjectId] = []
        self._position = 0

    def again(self) -> None:
        """Begin another try."""
        self.tries += 1
        self._position = 0

    def identifier(self) -> ObjectId:
        """Return the next identifier, the same as in the try before."""
        if self._position == len(self._identifiers):
            self._identifiers.append(ObjectId())
        found = self._identifiers[self._position]
        self._position += 1
        self.made.add(found)
        return found


_current: ContextVar[Call | None] = ContextVar("call", default=None)


@contextmanager
def call() -> Iterator[Call]:
    """Open a call; verbs inside it that call verbs open their own."""
    opened = Call(_current.get())
    token = _current.set(opened)
    try:
        yield opened
    finally:
        _current.reset(token)


def identifier() -> ObjectId:
    """Return an `_id` for a new record."""
    current = _current.get()
    return ObjectId() if current is None else current.identifier()


def note(made: Any) -> None:
    """Remember something that this call alone can have made."""
    current = _current.get()
    if current is not None:
        current.made.add(made)


def made_here(something: Any) -> bool:
    """Tell whether this call, or one that it is part of, has made something."""
    current = _current.get()
    while current is not None:
        if something in current.made:
            return True
        current = current.outer
    return False


def tried_before() -> bool:
    """Tell whether this call, or one that it is part of, is not at its first try."""
    current = _current.get()
    while current is not None:
        if current.tries > 1:
            return True
        current = current.outer
    return False
