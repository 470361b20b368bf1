"""The MongoDB wire protocol: message frames in, message frames out.

A message is a 16-byte header (length, request id, answered id, operation; little-endian int32) and
a body. Drivers send OP_MSG (2013: flags, then one document and any number of document sequences);
the very first handshake may still be an OP_QUERY (2004), answered by OP_REPLY (1).

Source: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
"""

import struct
from dataclasses import dataclass
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError

HEADER = struct.Struct("<iiii")
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
MAX_MESSAGE_BYTES = 48_000_000

OP_REPLY = 1
OP_QUERY = 2004
OP_MSG = 2013

_CHECKSUM_PRESENT = 1
_MORE_TO_COME = 2
# Naive UTC times, exotic ones kept as they are, binary subtypes untouched: what comes in goes out.
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=False, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)


class ProtocolError(Exception):
    """The bytes are not a message that this server understands; the connection is closed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One command as received.

    Parameters
    ----------
    request_id
        Number the reply must name.
    operation
        OP_MSG or OP_QUERY.
    command
        The command document, document sequences folded in as lists.
    wants_reply
        False for unacknowledged writes.
    """

    request_id: int
    operation: int
    command: dict[str, Any]
    wants_reply: bool


def body_length(header: bytes) -> int:
    """Return how many bytes follow a header.

    Raises
    ------
    ProtocolError
        The announced length is impossible.
    """
    length = HEADER.unpack(header)[0]
    if not HEADER.size < length <= MAX_MESSAGE_BYTES + HEADER.size:
        raise ProtocolError(f"a message of {length} bytes is not possible")
    return int(length - HEADER.size)


def read_request(header: bytes, body: bytes) -> Request:
    """Return the command in one message.

    Raises
    ------
    ProtocolError
        The operation is unknown or the body is damaged.
    """
    _, request_id, _, operation = HEADER.unpack(header)
    try:
        if operation == OP_MSG:
            command, wants_reply = _read_op_msg(body)
        elif operation == OP_QUERY:
            command, wants_reply = _read_op_query(body), True
        else:
            raise ProtocolError(f"operation {operation} is not supported")
    except (BSONError, struct.error, ValueError, IndexError) as error:
        raise ProtocolError(f"damaged message: {error}") from error
    return Request(
        request_id=request_id, operation=operation, command=command, wants_reply=wants_reply
    )


def write_reply(request: Request, reply: dict[str, Any]) -> bytes:
    """Return the frame that answers `request` with the document `reply`."""
    document = bson.encode(reply, codec_options=CODEC)
    if request.operation == OP_MSG:
        operation, prefix = OP_MSG, b"\x00\x00\x00\x00\x00"
    else:
        operation, prefix = OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1)
    length = HEADER.size + len(prefix) + len(document)
    return HEADER.pack(length, 0, request.request_id, operation) + prefix + document


def write_command(command: dict[str, Any]) -> bytes:
    """Return the frame that sends a command, as a driver does."""
    document = bson.encode(command, codec_options=CODEC)
    length = HEADER.size + 5 + len(document)
    return HEADER.pack(length, 1, 0, OP_MSG) + b"\x00\x00\x00\x00\x00" + document


def _read_op_msg(body: bytes) -> tuple[dict[str, Any], bool]:
    """Return the command and whether a reply is wanted."""
    (flags,) = struct.unpack_from("<I", body)
    end = len(body) - (4 if flags & _CHECKSUM_PRESENT else 0)
    position = 4
    command: dict[str, Any] | None = None
    sequences: dict[str, list[dict[str, Any]]] = {}
    while position < end:
        kind = body[position]
        position += 1
        (size,) = struct.unpack_from("<i", body, position)
        if size < 5 or position + size > end:
            raise ProtocolError(f"a section of {size} bytes does not fit its message")
        if kind == 0:
            command = bson.decode(body[position : position + size], codec_options=CODEC)
        elif kind == 1:
            name_end = body.index(b"\x00", position + 4)
            name = body[position + 4 : name_end].decode()
            documents = body[name_end + 1 : position + size]
            sequences[name] = bson.decode_all(documents, codec_options=CODEC)
        else:
            raise ProtocolError(f"section kind {kind} is not supported")
        position += size
    if command is None:
        raise ProtocolError("the message holds no command")
    command.update(sequences)
    return command, not flags & _MORE_TO_COME


def _read_op_query(body: bytes) -> dict[str, Any]:
    """Return the command of a legacy query on `<database>.$cmd`."""
    name_end = body.index(b"\x00", 4)
    namespace = body[4:name_end].decode()
    database, _, collection = namespace.partition(".")
    if collection != "$cmd":
        raise ProtocolError(f"a legacy query on {namespace} is not supported")
    start = name_end + 1 + 8
    (size,) = struct.unpack_from("<i", body, start)
    command = bson.decode(body[start : start + size], codec_options=CODEC)
    command = command.get("$query", command)
    command.setdefault("$db", database)
    return command
