"""One emulator for all processes that use a folder; it ends itself when it is idle.

`address_of` starts it, as a process of its own with this module as its program.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from filelock import FileLock

from mixpanel_assets.emulator.server import Emulator
from mixpanel_assets.emulator.settings import EmulatorSettings

IDLE_SECONDS = 1800.0
START_SECONDS = 60.0  # a busy machine needs seconds to start a process
_TICK_SECONDS = 0.2

# A project for each region, with data of its own.
PROJECTS = {
    "us": EmulatorSettings(seed=7, project_id=12345, region="us"),
    "eu": EmulatorSettings(seed=8, project_id=23456, region="eu"),
    "in": EmulatorSettings(seed=9, project_id=34567, region="in"),
}


def address_of(folder: Path, region: str) -> str:
    """Return the address of a region's project, after starting the emulator if it does not run.

    Args:
        folder: Where its address and its log are; one emulator serves all who name it.
        region: One of `PROJECTS`.

    Raises:
        RuntimeError: The emulator did not start; the message names its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        addresses = _running(folder) or _start(folder)
    return addresses[region]


def _running(folder: Path) -> dict[str, str] | None:
    """Return the addresses of the emulator that answers; None if there is none."""
    place = folder / "emulator.json"
    try:
        addresses: dict[str, str] = json.loads(place.read_text())
        for address in addresses.values():
            with build_opener(ProxyHandler({})).open(f"{address}/emulator/clock", timeout=10):
                pass
        place.touch()  # activity, which keeps it from ending
    except (OSError, ValueError):
        return None
    return addresses


def _start(folder: Path) -> dict[str, str]:
    place, log = folder / "emulator.json", folder / "emulator.log"
    place.unlink(missing_ok=True)
    with log.open("w") as said:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", __name__, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,  # it outlives the run that started it
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if addresses := _running(folder):
            process.returncode = 0  # it is not waited for, and Python need not warn of that
            return addresses
        time.sleep(_TICK_SECONDS)
    process.kill()
    process.wait()
    raise RuntimeError(f"The emulated Mixpanel of the demo did not start; see {log}.")


def serve(folder: Path, idle_seconds: float = IDLE_SECONDS) -> None:
    """Serve until there is no activity for some time, or the folder is deleted."""
    place = folder / "emulator.json"
    with ExitStack() as running:
        emulators = {
            region: running.enter_context(Emulator(settings))
            for region, settings in PROJECTS.items()
        }
        unfinished = place.with_suffix(".new")
        unfinished.write_text(
            json.dumps({region: emulator.base_url for region, emulator in emulators.items()})
        )
        unfinished.replace(place)

        def activity() -> tuple[int, float]:
            """Return what changes with each request and each run."""
            requests = sum(len(emulator.requests) for emulator in emulators.values())
            return requests, place.stat().st_mtime

        seen, since = activity(), time.monotonic()
        while place.exists():
            time.sleep(_TICK_SECONDS)
            with FileLock(folder / "lock"), suppress(FileNotFoundError):
                if (now := activity()) != seen:
                    seen, since = now, time.monotonic()
                elif time.monotonic() - since > idle_seconds:
                    place.unlink()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
