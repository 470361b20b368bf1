"""Proton transfer in malonaldehyde with GFN2-xTB: from two tautomers to a barrier.

tace-al run workflows/proton_transfer.py
"""

from tace_al.campaign.config import Campaign, Stopping
from tace_al.workflows import reactions as known
from tace_al.workflows.catalysis import barrier_campaign


def campaign(
    *,
    labeller: str = "gfn2",
    num_images: int = 9,
    machine: str = "local",
    max_labels: int = 200,
    max_minutes: float = 12.0,
    seed: int = 0,
) -> Campaign:
    """Return the campaign; the arguments are those of `catalysis.campaign`."""
    return barrier_campaign(
        "proton_transfer",
        {"malonaldehyde": known.malonaldehyde()},
        labeller=labeller,
        num_images=num_images,
        machine=machine,
        stopping=Stopping(max_labels=max_labels, max_seconds=60 * max_minutes),
        references={"malonaldehyde": known.REFERENCE_BARRIERS["malonaldehyde"]}
        if labeller == "gfn2"
        else {},
        seed=seed,
    )
