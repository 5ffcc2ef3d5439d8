"""Read days with one client and print the costs as JSON.

The benchmarks start it as its own process, also with interpreters without this package, so it does
not import the package at the top. MP_* variables name the server.
Arguments: the client, its way, the first and the last day.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

DAY = "2024-01-01"


def ours(way: str, from_date: str, to_date: str) -> int:
    """Return the number of lines of a stream or, with `load`, of those that were stored."""
    from mixpanel_assets import Workspace

    workspace = Workspace()
    days = {"from_date": from_date, "to_date": to_date}
    if way == "load":
        with workspace:
            reports = workspace.sync_events(**days)
        return sum(day.row_count + day.duplicates_removed + day.quarantined for day in reports)
    if way == "lines":
        return _count(workspace.stream_event_lines(**days))
    stream = workspace.stream_events(**days, raw=way != "normalized", staged=way == "staged")
    return _count(stream)


def headless(way: str, from_date: str, to_date: str) -> int:
    """Return the number of events of mixpanel-headless: `raw` or `normalized`."""
    from mixpanel_headless import Workspace

    return _count(Workspace().stream_events(from_date=from_date, to_date=to_date, raw=way == "raw"))


def _count(stream: Iterable[object]) -> int:
    return sum(1 for _ in stream)


def peak_bytes() -> int:
    """Return the peak memory of this process. In Linux, `ru_maxrss` includes the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Count the events and print the figures."""
    clients: dict[str, Callable[[str, str, str], int]] = {"ours": ours, "headless": headless}
    client, arguments = clients[sys.argv[1]], sys.argv[2:]
    started, spent = time.perf_counter(), time.process_time()
    events = client(*arguments)
    figures = {
        "events": events,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - spent,
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
