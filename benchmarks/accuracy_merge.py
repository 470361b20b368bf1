"""Put the rows of several runs of an accuracy benchmark into one file and table.

python -m benchmarks.accuracy_merge RESULTS RUN/accuracy_acac.json ...
"""

import json
import sys
from pathlib import Path

from benchmarks.accuracy import add_rows


def main() -> None:
    """Merge the files named after the folder into those of the same name in the folder."""
    folder = Path(sys.argv[1])
    for name in sys.argv[2:]:
        rows = json.loads(Path(name).read_text())["rows"]
        add_rows(folder / Path(name).name, rows)
        print(f"{len(rows)} rows of {name}")


if __name__ == "__main__":
    main()
