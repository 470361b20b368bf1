"""Inputs that are written, and inputs of users that are taken over."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from tace_al.core.errors import ConfigError, SamplerError
from tace_al.core.units import BOHR
from tace_al.engines.sampling.ipi_input import (
    PimdSettings,
    StartState,
    num_beads_of,
    own_input,
    pimd_input,
    timestep_fs_of,
)
from tace_al.engines.sampling.ipi_state import cell_element, read_state

OWN = """<simulation safe_stride='100'>
  <output prefix='mine'><checkpoint stride='1000'/>
    <properties filename='p'>[ step ]</properties></output>
  <total_steps> 7 </total_steps>
  <ffsocket name='x' mode='inet'><address>localhost</address><port>31415</port></ffsocket>
  <system>
    <initialize nbeads='4'><file mode='xyz'> somewhere.xyz </file></initialize>
    <forces><force forcefield='x'/></forces>
    <motion mode='dynamics'><dynamics mode='nvt'>
      <timestep units='picosecond'> 0.002 </timestep>
      <thermostat mode='gle'> <A shape='(1,1)'> [ 1.0 ] </A> </thermostat>
    </dynamics></motion>
    <ensemble><temperature units='kelvin'> 100 </temperature></ensemble>
  </system>
</simulation>"""


def start(atoms: Atoms, beads: int, *, momenta: bool = False) -> StartState:
    rng = np.random.default_rng(0)
    positions = np.repeat(atoms.positions[None], beads, axis=0)
    return StartState(
        atoms=atoms,
        positions=positions + 0.01 * rng.standard_normal(positions.shape),
        momenta=rng.standard_normal(positions.shape) if momenta else None,
        seed=5,
    )


def test_a_written_state_is_read_back(tmp_path: Path) -> None:
    begin = start(molecule("H2O"), 3, momenta=True)
    text = pimd_input(PimdSettings(temperature=300.0, beads=3), begin, socket=Path("/x/s"))
    (tmp_path / "state").write_text(text)
    state = read_state(tmp_path / "state")
    assert state is not None and begin.momenta is not None
    np.testing.assert_allclose(state.positions, begin.positions, rtol=1e-14)
    np.testing.assert_allclose(state.momenta, begin.momenta, rtol=1e-14)
    assert "<initialize" not in text


def test_a_state_that_was_cut_off_is_none(tmp_path: Path) -> None:
    text = pimd_input(
        PimdSettings(temperature=300.0, beads=2),
        start(molecule("H2O"), 2, momenta=True),
        socket=Path("/x/s"),
    )
    (tmp_path / "state").write_text(text[: len(text) // 2])
    assert read_state(tmp_path / "state") is None
    assert read_state(tmp_path / "missing") is None


def test_the_columns_of_the_cell_are_lattice_vectors() -> None:
    cell = np.array([[4.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.5, 0.25, 6.0]])
    numbers = np.array((cell_element(cell).text or "").strip(" []").split(","), dtype=float)
    np.testing.assert_allclose(numbers.reshape(3, 3), cell.T / BOHR)
    with pytest.raises(SamplerError, match="standard_form"):
        cell_element(bulk("Cu").cell.array)


def test_ensembles_say_what_they_are() -> None:
    slab = bulk("Cu", cubic=True)
    slab.set_constraint(FixAtoms([2]))

    def motion(**settings: object) -> ElementTree.Element:
        made = PimdSettings(temperature=300.0, beads=2, **settings)  # type: ignore[arg-type]
        text = pimd_input(made, start(slab, 2), socket=Path("/x/s"))
        found = ElementTree.fromstring(text).find("system/motion")
        assert found is not None
        return found

    nvt = motion()
    assert nvt.find("dynamics/thermostat") is not None
    assert (nvt.findtext("fixatoms") or "").split() == ["[", "2", "]"]
    assert (nvt.findtext("fixcom") or "").strip() == "False"
    assert motion(ensemble="rpmd").find("dynamics/thermostat") is None
    assert motion(ensemble="npt").find("dynamics/barostat") is not None
    with pytest.raises(ConfigError, match="periodic in three directions"):
        pimd_input(
            PimdSettings(temperature=300.0, beads=2, ensemble="npt"),
            start(molecule("H2O"), 2),
            socket=Path("/x/s"),
        )
    with pytest.raises(ConfigError, match="`beads` is 0"):
        PimdSettings(temperature=300.0, beads=0)


def test_a_users_input_keeps_its_thermostat_and_loses_its_sockets() -> None:
    text = own_input(
        OWN,
        start(molecule("H2O"), 4),
        steps=50,
        checkpoint_every=10,
        socket=Path("/private/s"),
        temperature=100.0,
    )
    root = ElementTree.fromstring(text)
    thermostat = root.find("system/motion/dynamics/thermostat")
    assert thermostat is not None and thermostat.get("mode") == "gle"
    socket = root.find("ffsocket")
    assert socket is not None and socket.get("mode") == "unix" and socket.find("port") is None
    assert root.get("sockets_prefix") == "/private/"
    assert int(root.findtext("total_steps") or 0) == 50
    assert root.find("system/initialize/file") is None
    assert len(root.findall("output/checkpoint")) == 2
    assert num_beads_of(OWN) == 4
    assert timestep_fs_of(OWN) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<simulation>", "is no XML"),
        ("<input/>", "must be one <simulation>"),
        ("<simulation/>", "0 <system> and 0 <ffsocket>"),
    ],
)
def test_an_input_that_cannot_be_used_is_one_sentence(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        own_input(
            text,
            start(molecule("H2O"), 1),
            steps=1,
            checkpoint_every=1,
            socket=Path("/x/s"),
            temperature=1.0,
        )
