"""What `tace-al shear` and `tace-al heat` have done so far: arrays and frames, replaced at once."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from tace_al.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

STATE, TRAJECTORY = "flow_state.npz", "trajectory.xyz"


@final
class FlowState:
    """The state of a run in its folder.

    Parameters
    ----------
    folder
        Of the results.
    told
        Everything that decides the numbers; a folder of anything else is refused.
    """

    def __init__(self, folder: Path, told: Mapping[str, Any]) -> None:
        import numpy as np

        from tace_al.cli.calculation_files import plain
        from tace_al.data.frames import frames_from_bytes

        self.path = folder / STATE
        self.told = json.dumps(plain(told), sort_keys=True)
        self.arrays: dict[str, np.ndarray] = {}
        self.frames: list[Atoms] = []
        if not self.path.exists():
            return
        with np.load(self.path) as content:
            self.arrays = {name: content[name] for name in content.files}
        if str(self.arrays.pop("told")) != self.told:
            raise DataError(
                f"{folder} holds a run with other settings; choose another folder with --out, or "
                "run with the settings it began with"
            )
        self.frames = frames_from_bytes(self.arrays.pop("kept_frames").tobytes())

    def write(self, arrays: "Mapping[str, np.ndarray]", frames: "list[Atoms]") -> None:
        """Replace the state on disk."""
        import numpy as np

        from tace_al.core.atomic_write import write_bytes
        from tace_al.data.frames import frames_to_bytes

        stream = io.BytesIO()
        content: dict[str, Any] = {
            **arrays,
            "told": np.array(self.told),
            "kept_frames": np.frombuffer(frames_to_bytes(frames), dtype=np.uint8),
        }
        np.savez(stream, **content)
        write_bytes(self.path, stream.getvalue())


def kept_frame(atoms: "Atoms", *, step: int, time_fs: float) -> "Atoms":
    """Return a frame for the trajectory, momenta included."""
    frame = atoms.copy()
    frame.set_constraint()
    frame.info = {"step": step, "time_fs": time_fs}
    return frame
