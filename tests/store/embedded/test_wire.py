import struct

import bson
import pytest

from tace_al.store.embedded.wire import (
    HEADER,
    OP_MSG,
    OP_QUERY,
    OP_REPLY,
    ProtocolError,
    body_length,
    read_request,
    write_command,
    write_reply,
)


def split(frame: bytes) -> tuple[bytes, bytes]:
    return frame[: HEADER.size], frame[HEADER.size :]


def test_a_command_comes_back_as_it_was_sent():
    command = {"find": "x", "filter": {"n": float("inf")}, "$db": "d"}
    header, body = split(write_command(command))
    assert body_length(header) == len(body)
    request = read_request(header, body)
    assert request.command == command
    assert request.wants_reply


def test_document_sequences_are_folded_into_the_command():
    document = bson.encode({"insert": "x", "$db": "d"})
    items = bson.encode({"a": 1}) + bson.encode({"a": 2})
    sequence = struct.pack("<i", 4 + 10 + len(items)) + b"documents\x00" + items
    body = struct.pack("<I", 2) + b"\x00" + document + b"\x01" + sequence
    header = HEADER.pack(HEADER.size + len(body), 5, 0, OP_MSG)
    request = read_request(header, body)
    assert request.command["documents"] == [{"a": 1}, {"a": 2}]
    assert not request.wants_reply, "moreToCome is an unacknowledged write"
    assert request.request_id == 5


def test_the_legacy_handshake_is_answered_in_kind():
    body = struct.pack("<i", 0) + b"admin.$cmd\x00" + struct.pack("<ii", 0, -1)
    body += bson.encode({"ismaster": 1})
    header = HEADER.pack(HEADER.size + len(body), 9, 0, OP_QUERY)
    request = read_request(header, body)
    assert request.command == {"ismaster": 1, "$db": "admin"}
    reply = write_reply(request, {"ok": 1.0})
    assert HEADER.unpack(reply[: HEADER.size]) == (len(reply), 0, 9, OP_REPLY)


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00\x00\x00\x00", b"\x00" * 4 + b"\x00\xff\xff\xff\x7f", b"\x00" * 4 + b"\x07" * 9],
)
def test_damaged_messages_are_refused(body: bytes):
    with pytest.raises(ProtocolError):
        read_request(HEADER.pack(HEADER.size + len(body), 1, 0, OP_MSG), body)


def test_impossible_lengths_are_refused():
    with pytest.raises(ProtocolError, match="not possible"):
        body_length(HEADER.pack(2_000_000_000, 1, 0, OP_MSG))
