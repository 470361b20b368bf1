"""Documents of the embedded database whose bytes on disk are not those that were written.

Each has a checksum there. One that can still be read is used, and named by `tace-al db check`; one
that cannot is left out. A MongoDB server looks after its own files.
"""

from dataclasses import dataclass
from typing import final

from pymongo.errors import OperationFailure

from tace_al.store.border import guarded
from tace_al.store.connection import Connection


@dataclass(frozen=True, kw_only=True, slots=True)
class DamagedDocument:
    """A document that is not sound.

    Parameters
    ----------
    serial
        Its number in the file.
    collection, key
        Where it belongs and what it is called, as far as can be read; `key` may be "".
    lost
        Whether it cannot be read at all.
    """

    serial: int
    collection: str
    key: str
    lost: bool


@final
class Damage:
    """The damaged documents of a database."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @guarded
    def documents(self) -> list[DamagedDocument]:
        """Return all of them, of whatever campaign."""
        if self.connection.uri:
            return []
        try:
            reply = self.connection.documents.command("damaged")
        except OperationFailure:  # a server that an earlier version started
            return []
        return [DamagedDocument(**each) for each in reply["documents"]]

    @guarded
    def forget_lost(self) -> int:
        """Delete the documents that cannot be read; return how many there were."""
        lost = [each.serial for each in self.documents() if each.lost]
        if lost:
            self.connection.documents.command({"forgetLost": lost})
        return len(lost)
