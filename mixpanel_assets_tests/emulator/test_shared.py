"""One emulator for all processes that use a folder."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from mixpanel_assets.emulator.shared import PROJECTS, address_of, serve


def test_an_idle_emulator_ends_and_the_next_run_starts_another(tmp_path: Path):
    """It deletes its address first, so that no run is sent to it."""
    place = tmp_path / "emulator.json"
    for _ in range(2):
        serving = threading.Thread(target=serve, args=(tmp_path, 0.0))
        serving.start()
        serving.join()
        assert not place.exists()


@pytest.mark.slow
def test_two_callers_start_one_process_which_ends_with_its_folder(tmp_path: Path):
    """Both get its address, though one of a crashed process is there.

    It has a project for each region, and ends with its folder.
    """
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "emulator.json").write_text('{"us": "http://127.0.0.1:9"}')
    with ThreadPoolExecutor() as pool:
        one, other, europe = pool.map(lambda region: address_of(folder, region), ["us", "us", "eu"])
    assert one == other != europe
    for address, region in ((one, "us"), (europe, "eu")):
        project = PROJECTS[region]
        answer = httpx.get(
            f"{address}/api/query/events/names",
            params={"project_id": project.project_id},
            auth=(project.username, project.secret),
            trust_env=False,
        )
        assert "Sign Up" in answer.json()
    (folder / "emulator.json").unlink()
    while is_up(one):
        time.sleep(0.05)


def is_up(address: str) -> bool:
    try:
        httpx.get(f"{address}/emulator/clock", trust_env=False)
    except httpx.TransportError:
        return False
    return True
