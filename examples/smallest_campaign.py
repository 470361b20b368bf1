"""The smallest campaign: how high is the barrier for ammonia to turn inside out?

Two end states and a labeller are all it takes; GFN2-xTB gives 0.265 eV. Prints the barrier that the
committee found, in eV. Run the same command again and it goes on from where it was.
"""

import sys
from pathlib import Path

from rich.console import Console

from tace_al.campaign.config import Stopping
from tace_al.campaign.loop import run_campaign
from tace_al.workflows.catalysis import barrier_campaign
from tace_al.workflows.reactions import ammonia_inversion  # two ase.Atoms: before and after

campaign = barrier_campaign(
    "ammonia", {"inversion": ammonia_inversion()}, labeller="gfn2", stopping=Stopping(max_labels=30)
)
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/ammonia")
result = run_campaign(campaign, directory=folder, uri=None, console=Console(stderr=True))
print(f"{result.barriers['inversion']['barrier']:.3f}")
