"""What the server answers when it cannot do what it was asked: MongoDB's own error codes.

Source: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
"""

from typing import Any

BAD_VALUE = 2
FAILED_TO_PARSE = 9
NAMESPACE_NOT_FOUND = 26
INDEX_NOT_FOUND = 27
CURSOR_NOT_FOUND = 43
COMMAND_NOT_FOUND = 59
IMMUTABLE_FIELD = 66
INDEX_CONFLICT = 86
NOT_IMPLEMENTED = 238
INTERNAL_ERROR = 1
DUPLICATE_KEY = 11000
DOCUMENT_TOO_LARGE = 10334
OUT_OF_DISK_SPACE = 14031


class CommandError(Exception):
    """A command failed.

    Parameters
    ----------
    code
        MongoDB's number of the error.
    message
        What is wrong.
    details
        More fields of the reply.
    """

    def __init__(self, code: int, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def reply(self) -> dict[str, Any]:
        """Return the failed command's reply."""
        return {"ok": 0.0, "errmsg": self.message, "code": self.code, **self.details}

    def write_error(self, index: int) -> dict[str, Any]:
        """Return the entry of `writeErrors` for the operation with this index."""
        return {"index": index, "code": self.code, "errmsg": self.message, **self.details}
