"""What every test relies on: one thread, no display, no leftovers between tests.

Thread counts are set before torch is imported; two threads on a busy two-core machine are tens of
times slower than one.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["NO_COLOR"] = "1"  # the command line's text is compared
os.environ["TERMINAL_WIDTH"] = os.environ["COLUMNS"] = "120"
os.environ.pop("FORCE_COLOR", None)
