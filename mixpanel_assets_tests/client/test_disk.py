"""The spool folder: room is looked for, and only leftovers of ours are deleted."""

import os
import time
from datetime import timedelta

import pytest

from mixpanel_assets.client.disk import Cleaned, clean, free_bytes, require_room
from mixpanel_assets.errors import StorageError

ANSWER = "0" * 32 + "-2024-01-01_2024-01-07.jsonl.gz"
WEEK = 7 * 86_400


@pytest.fixture
def spool(tmp_path):
    return tmp_path / "spool"


def aged(path, seconds, content=b"x" * 10):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_old_answers_and_snapshots_go_young_ones_stay(spool):
    """Seven days by default; a snapshot is as young as its youngest page."""
    old = aged(spool / ANSWER, WEEK + 60)
    young = aged(spool / ANSWER.replace("0-2024", "1-2024"), WEEK - 60)
    for page, age in enumerate((WEEK + 60, WEEK + 60)):
        aged(spool / "profiles-ab12" / f"page-{page:06d}.jsonl", age)
    aged(spool / "profiles-cd34" / "plan.json", WEEK + 60)
    aged(spool / "profiles-cd34" / "page-000000.jsonl", 60)
    assert clean(spool) == Cleaned(deleted=2, deleted_bytes=30, kept=2)
    assert not old.exists()
    assert sorted(path.name for path in spool.iterdir()) == [young.name, "profiles-cd34"]


def test_what_somebody_may_be_writing_stays(spool):
    """The last hour's files are left alone, whatever is asked."""
    aged(spool / ANSWER, 1800)
    assert clean(spool, timedelta(0)) == Cleaned(kept=1)


def test_strangers_are_never_touched(spool):
    """Files that only lie in the same folder, or in a folder with a name like ours, stay."""
    aged(spool / "notes.jsonl", 2 * WEEK)
    aged(spool / "profiles-mine" / "photo.jpg", 2 * WEEK)
    (spool / ANSWER).mkdir()
    assert clean(spool) == Cleaned()
    assert len(list(spool.iterdir())) == 3


def test_a_missing_folder_is_a_clean_one(tmp_path):
    """Nothing was ever spooled."""
    assert clean(tmp_path / "spool") == Cleaned()


def test_room_is_judged_on_the_disk_where_the_folder_will_be(tmp_path):
    """The folder need not exist; too little room is told in figures."""
    spool = tmp_path / "a" / "b"
    require_room(spool, 1000, "export x")
    with pytest.raises(StorageError, match=r"export x needs about .* MB, but .* MB free"):
        require_room(spool, free_bytes(spool), "export x")
