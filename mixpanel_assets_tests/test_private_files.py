"""What Mixpanel sends is readable by its user alone until it is stored, then as the database is."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import ProfileQuery
from mixpanel_assets.emulator import Fault
from mixpanel_assets.errors import MixpanelDataError
from mixpanel_assets.loading.files import write_snapshot
from mixpanel_assets_tests.conftest import START


@pytest.fixture(params=[0o000, 0o022])
def careless(request) -> Iterator[None]:
    """A process whose umask lets every user read the files that it creates."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """Return the rights of all that is in a folder, by path."""
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.usefixtures("careless")
def test_what_is_received_is_for_its_user_alone(client, tmp_path):
    """Files of events, pages and plans of profiles, and their folders."""
    folder = tmp_path / "spool"
    spools = list(client.event_export(from_date=START, to_date=START, directory=folder / "events"))
    client.plan_profiles(folder / "profiles", ProfileQuery())
    assert spools
    found = modes(folder)
    assert {"profiles/plan.json", "profiles/page-000000.jsonl", "events"} <= found.keys()
    assert {mode & 0o077 for name, mode in found.items()} == {0}


def test_files_that_were_asked_for_have_the_rights_that_the_umask_leaves(client, tmp_path):
    """They are the user's own."""
    for umask in (0o000, 0o027):
        before = os.umask(umask)
        try:
            write_snapshot(client, tmp_path / f"{umask}.jsonl")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / f"{umask}.jsonl").stat().st_mode) == 0o666 & ~umask


@pytest.mark.usefixtures("careless")
def test_nothing_that_a_load_leaves_is_for_everybody(
    credentials, settings, emulator, tmp_path, monkeypatch
):
    """Database, snapshot, locks, request counts; answers that could not be stored; the results."""
    monkeypatch.setenv("MP_STATE_DIR", str(tmp_path / "state"))
    kept = settings.model_copy(
        update={"state_dir": str(tmp_path / "state"), "database": tmp_path / "data" / "w.duckdb"}
    )
    emulator.faults.add(Fault("foreign-rows", day=START, times=None))
    with Workspace(credentials=credentials, settings=kept) as workspace:
        with pytest.raises(MixpanelDataError):
            workspace.sync_events(START, START.replace(day=3))
        workspace.sync_profiles()
    for folder in ("data", "state"):
        found = modes(tmp_path / folder)
        assert found
        assert {name: mode for name, mode in found.items() if mode & 0o007} == {}
    spooled = [name for name in modes(tmp_path / "data") if name.startswith("spool/")]
    assert spooled
