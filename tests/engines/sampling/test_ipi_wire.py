"""The protocol byte by byte, against messages packed as i-PI's own code packs them."""

import json
import struct

import numpy as np
import pytest

from tace_al.core.errors import SamplerError
from tace_al.core.units import BOHR, HARTREE
from tace_al.engines.sampling.ipi_wire import Answer, ClientProtocol, message

CELL = np.array([[10.0, 2.0, 1.0], [0.0, 12.0, 3.0], [0.0, 0.0, 14.0]])  # columns, Bohr
POSITIONS = np.arange(6.0).reshape(2, 3) + 0.5


def init(parameters: str = "") -> bytes:
    return message("INIT") + struct.pack("=ii", 0, len(parameters)) + parameters.encode()


def positions(array: np.ndarray = POSITIONS) -> bytes:
    cell = CELL.tobytes() + np.linalg.inv(CELL).tobytes()
    return message("POSDATA") + cell + struct.pack("=i", len(array)) + array.tobytes()


def answer(energy: float, extras: str = "") -> Answer:
    return Answer(energy=energy, forces=np.ones((2, 3)), virial=2.0 * np.eye(3), extras=extras)


def ready() -> ClientProtocol:
    protocol = ClientProtocol()
    assert protocol.feed(message("STATUS")) == message("NEEDINIT")
    assert protocol.feed(init(" a : 1 , ") + message("STATUS")) == message("READY")
    return protocol


def test_a_step_in_one_piece() -> None:
    protocol = ready()
    assert protocol.feed(positions() + message("GETFORCE")) == b""
    assert protocol.waiting is not None
    np.testing.assert_allclose(protocol.waiting.positions[0], POSITIONS * BOHR)
    np.testing.assert_allclose(protocol.waiting.cells[0], CELL.T * BOHR)

    extras = json.dumps({"a": 1})
    reply = protocol.answer([answer(HARTREE, extras)])
    assert reply[:12] == message("FORCEREADY")
    assert struct.unpack_from("=di", reply, 12) == (pytest.approx(1.0), 2)
    np.testing.assert_allclose(np.frombuffer(reply, count=6, offset=24), BOHR / HARTREE)
    virial = np.frombuffer(reply, count=9, offset=24 + 48).reshape(3, 3)
    np.testing.assert_allclose(virial, 2.0 / HARTREE * np.eye(3))
    assert reply[24 + 48 + 72 :] == struct.pack("=i", len(extras)) + extras.encode()
    assert protocol.feed(message("STATUS")) == message("READY")


def test_a_step_in_three_pieces_with_a_status_that_has_to_wait() -> None:
    protocol = ready()
    assert protocol.feed(positions()) == b""
    assert protocol.feed(message("STATUS")) == b""  # READY would invite other positions
    assert protocol.answer([answer(0.0)]) == message("HAVEDATA")
    assert protocol.feed(message("STATUS")) == message("HAVEDATA")
    assert protocol.feed(message("GETFORCE")).startswith(message("FORCEREADY"))


def test_bytes_may_come_one_by_one() -> None:
    protocol = ready()
    for byte in positions() + message("GETFORCE"):
        assert protocol.feed(bytes([byte])) == b""
    assert protocol.waiting is not None


def test_a_batch_comes_and_goes_in_one_message() -> None:
    protocol = ClientProtocol()
    protocol.feed(message("STATUS") + init("batch_size:3"))
    cells = (CELL.tobytes() + np.linalg.inv(CELL).tobytes()) * 3
    beads = np.array([POSITIONS + index for index in range(3)])
    protocol.feed(
        message("POSDATA") + struct.pack("=i", 2) + cells + beads.tobytes() + message("GETFORCE")
    )
    assert protocol.waiting is not None
    np.testing.assert_allclose(protocol.waiting.positions, beads * BOHR)

    reply = protocol.answer([answer(HARTREE * index) for index in range(3)])
    np.testing.assert_allclose(np.frombuffer(reply, count=3, offset=12), [0, 1, 2], atol=1e-15)
    assert len(reply) == 12 + 3 * 8 + 4 + 3 * 48 + 3 * 72 + 3 * 4


def test_exit_ends_it() -> None:
    protocol = ready()
    protocol.feed(message("EXIT"))
    assert protocol.finished


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"GET / HTTP/1.1\r\n", "no message of i-PI"),
        (message("GETFORCE"), "before it sent positions"),
        (positions()[:156] + struct.pack("=i", -1), "announces -1 atoms"),
        (message("POSDATA") + struct.pack("=ii", 2, 14) + b"ipi_shm_1_2_po", "mode='unix'"),
    ],
)
def test_what_is_not_spoken_here_is_refused_in_a_sentence(content: bytes, complaint: str) -> None:
    with pytest.raises(SamplerError, match=complaint):
        ready().feed(content)
