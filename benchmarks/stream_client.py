"""Stream one day with one client and print the costs as JSON.

`benchmarks.stream` starts it as its own process, also with interpreters without this package,
so it does not import the package at the top. MP_* variables name the server.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

DAY = "2024-01-01"


def ours(way: str) -> Iterable[object]:
    """Return a stream of this package: `raw`, `normalized`, `staged` (raw) or `lines`."""
    from mixpanel_assets import Workspace

    workspace = Workspace()
    if way == "lines":
        return workspace.stream_event_lines(from_date=DAY, to_date=DAY)
    return workspace.stream_events(
        from_date=DAY, to_date=DAY, raw=way != "normalized", staged=way == "staged"
    )


def headless(way: str) -> Iterable[object]:
    """Return the stream of mixpanel-headless: `raw` or `normalized`."""
    from mixpanel_headless import Workspace

    return Workspace().stream_events(from_date=DAY, to_date=DAY, raw=way == "raw")


def peak_bytes() -> int:
    """Return the peak memory of this process. In Linux, `ru_maxrss` includes the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Count the events and print the figures."""
    clients: dict[str, Callable[[str], Iterable[object]]] = {"ours": ours, "headless": headless}
    stream = clients[sys.argv[1]](sys.argv[2])
    started, spent = time.perf_counter(), time.process_time()
    events = sum(1 for _ in stream)
    figures = {
        "events": events,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - spent,
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
