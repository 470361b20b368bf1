"""Proton transfer in malonaldehyde with GFN2-xTB: from two tautomers to a barrier.

tace-al run workflows/proton_transfer.py
tace-al run workflows/proton_transfer.py --set fidelities=gfn1,gfn2

The second labels at two levels of theory: GFN1-xTB everywhere, GFN2-xTB where the committee does
not know what the two differ by. The barrier is that of the last level.
"""

from tace_al.campaign.config import Campaign, Stopping
from tace_al.workflows import reactions as known
from tace_al.workflows.catalysis import barrier_campaign


def campaign(
    *,
    labeller: str = "gfn2",
    fidelities: tuple[str, ...] = (),
    num_images: int = 9,
    machine: str = "local",
    max_labels: int = 0,
    max_minutes: float = 12.0,
    seed: int = 0,
) -> Campaign:
    """Return the campaign; the other arguments are those of `catalysis.campaign`.

    Parameters
    ----------
    fidelities
        Two labellers, the cheap one first; `labeller` is then the second and goes without saying.
    max_labels
        Labels at all levels; 0 means 200, and 400 with two levels.
    """
    level = fidelities[-1] if fidelities else labeller
    return barrier_campaign(
        "proton_transfer",
        {"malonaldehyde": known.malonaldehyde()},
        labeller=level,
        fidelities=fidelities,
        num_images=num_images,
        machine=machine,
        stopping=Stopping(
            max_labels=max_labels or (400 if fidelities else 200), max_seconds=60 * max_minutes
        ),
        references={"malonaldehyde": known.REFERENCE_BARRIERS["malonaldehyde"]}
        if level == "gfn2"
        else {},
        seed=seed,
    )
