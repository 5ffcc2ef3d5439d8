"""Archives each day as Mixpanel sends it: python raw.py FROM TO FOLDER.

The lines are not parsed and not changed, so the archive can be compared with any other export.
"""

import gzip
import sys
from datetime import date, timedelta
from pathlib import Path

from mixpanel_assets import Workspace


def main(from_date: str, to_date: str, folder: Path) -> None:
    """Write one compressed file of JSON Lines for each day that has none."""
    folder.mkdir(parents=True, exist_ok=True)
    first, last = date.fromisoformat(from_date), date.fromisoformat(to_date)
    with Workspace() as ws:
        for offset in range((last - first).days + 1):
            day = first + timedelta(days=offset)
            target = folder / f"{day}.jsonl.gz"
            if target.exists():
                continue
            unfinished = target.with_suffix(".part")
            with gzip.open(unfinished, "wb") as file:
                for line in ws.stream_event_lines(from_date=day, to_date=day, staged=True):
                    file.write(line + b"\n")
            unfinished.replace(target)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
