"""The spool folder: room is looked for, and only leftovers of ours are deleted."""

import os
import time
from datetime import timedelta

import pytest

from mixpanel_assets.client.spool import Cleaned, clean, free_bytes, require_room
from mixpanel_assets.errors import StorageError
from mixpanel_assets_tests.warehouse.processes import in_another_process

ANSWER = "0" * 32 + "-2024-01-01_2024-01-07.jsonl.gz"
WEEK = 7 * 86_400
PAGES = "profiles-" + "ab12" * 4 + "-" + "0" * 32
OTHER_PAGES = "profiles-" + "cd34" * 4 + "-" + "0" * 32


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
        aged(spool / PAGES / f"page-{page:06d}.jsonl", age)
    aged(spool / OTHER_PAGES / "plan.json", WEEK + 60)
    aged(spool / OTHER_PAGES / "page-000000.jsonl", 60)
    assert clean(spool) == Cleaned(deleted=2, deleted_bytes=30, kept=2)
    assert not old.exists()
    assert sorted(path.name for path in spool.iterdir()) == [young.name, OTHER_PAGES]


def test_what_somebody_may_be_writing_stays(spool):
    """The last hour's files are kept, whatever age the call gives."""
    aged(spool / ANSWER, 1800)
    assert clean(spool, timedelta(0)) == Cleaned(kept=1)


def test_strangers_are_never_touched(spool):
    """Files that only lie in the same folder, or in a folder with a name like ours, stay."""
    theirs = [
        aged(spool / name, 2 * WEEK)
        for name in (
            "notes.jsonl",
            f"{'0' * 31}-2024-01-01_2024-01-07.jsonl.gz",
            f"{ANSWER}.bak",
            f"{'0' * 32}-2024-02-30_2024-02-31.jsonl.gz",
            f"{'0' * 32}.locked",
            "profiles-mine/photo.jpg",
            "profiles-2024/page-000000.jsonl",
            f"{PAGES}/photo.jpg",
            f"{PAGES}/page-000000.jsonl",
            f"{OTHER_PAGES}/page-000000.jsonl/photo.jpg",
            f"{ANSWER[:-3]}/photo.jpg",
        )
    ]
    linked = spool / f"{PAGES[:-1]}1"
    linked.symlink_to(spool / "profiles-2024", target_is_directory=True)
    (spool / ANSWER).symlink_to(spool / "notes.jsonl")
    assert clean(spool, timedelta(0)) == Cleaned()
    assert all(file.exists() for file in theirs)
    assert linked.is_symlink()


HOLD_ANSWER = """
    from mixpanel_assets.client.spool import in_use
    from pathlib import Path
    with in_use(Path(sys.argv[1]), "0" * 24):
        print("held", flush=True)
        sys.stdin.read()
"""
HOLD_PAGES = """
    from mixpanel_assets.client.spool import pages_in_use
    from pathlib import Path
    with pages_in_use(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
"""


def test_what_a_living_process_uses_stays_however_old_it_is(spool):
    """Files of a dead process are deleted, together with the mark of their use."""
    old = aged(spool / ANSWER, 9 * WEEK)
    page = aged(spool / PAGES / "page-000000.jsonl", 9 * WEEK)
    unused = aged(spool / ANSWER.replace("0-2024", "1-2024").replace("0", "f", 24), 9 * WEEK)
    with in_another_process(HOLD_ANSWER, spool), in_another_process(HOLD_PAGES, page.parent):
        [mark] = page.parent.glob("*.lock")
        os.utime(mark, (0, 0))
        assert clean(spool, timedelta(0)) == Cleaned(deleted=1, deleted_bytes=10, kept=2)
        assert (old.exists(), page.exists(), unused.exists()) == (True, True, False)
    assert len(list(spool.rglob("*.lock"))) == 2  # they were killed
    assert clean(spool, timedelta(0)) == Cleaned(deleted=2, deleted_bytes=20)
    assert list(spool.iterdir()) == []


def test_a_missing_folder_is_a_clean_one(tmp_path):
    """Nothing was ever spooled."""
    assert clean(tmp_path / "spool") == Cleaned()


def test_room_is_judged_on_the_disk_where_the_folder_will_be(tmp_path):
    """The folder need not exist; the error for too little room has the figures."""
    spool = tmp_path / "a" / "b"
    require_room(spool, 1000, "export x")
    with pytest.raises(StorageError, match=r"export x needs about .* MB, but .* MB free"):
        require_room(spool, free_bytes(spool), "export x")
