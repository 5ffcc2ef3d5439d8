"""Files of others beside a database, in the folder for spilled rows, in temporary folders: kept."""

import os
import subprocess
import sys
import tempfile

import pytest

from mixpanel_assets.rules.locks import MARK, hold
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.warehouse.files import PREFIX, sweep
from mixpanel_assets.warehouse.lock import note_path
from mixpanel_assets_tests.laws import siblings
from mixpanel_assets_tests.warehouse.processes import in_another_process

SPILLED = "duckdb_temp_storage_DEFAULT-0.tmp"
HEX = "0123456789abcdef" * 2


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "x.duckdb"
    path.parent.mkdir()
    return path


@pytest.fixture
def dead():
    """The id of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write(path):
    with Database(path).write() as connection:
        connection.execute("CREATE OR REPLACE TABLE numbers AS SELECT 1 AS n")


def made(path, text="mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("is_link", [True, False])
def test_the_folder_for_spilled_rows_keeps_what_is_not_ours(path, is_link, dead):
    """A link to a larger disk, or a folder, with files, folders, and names that resemble ours."""
    place = path.with_name("x.duckdb.tmp")
    if is_link:
        other = path.parent.parent / "larger disk"
        other.mkdir()
        place.symlink_to(other, target_is_directory=True)
    names = {
        "holiday.jpg",
        "taxes/2025.pdf",
        SPILLED,
        f"backup-{HEX}/{SPILLED}",
        f"{dead}-{HEX[1:]}/{SPILLED}",
        f"{dead}-{HEX}/mine.txt",
        f"{dead}-{HEX[::-1]}/below/{SPILLED}",
    }
    for name in names:
        made(place / name)
    (place / f"{dead}-{'a' * 32}").symlink_to(place / "taxes", target_is_directory=True)
    (place / f"{dead}-{'b' * 32}").mkdir()
    (place / f"{dead}-{'b' * 32}" / SPILLED).symlink_to(place / "holiday.jpg")
    kept = files_below(place)
    write(path)
    assert files_below(place) == kept >= names
    assert place.is_symlink() == is_link


def test_an_empty_folder_for_spilled_rows_stays(path):
    """It may be a mount point, or have permissions of its own."""
    place = path.with_name("x.duckdb.tmp")
    place.mkdir()
    write(path)
    assert place.is_dir()


HOLD = """
    from pathlib import Path
    from mixpanel_assets.warehouse.database import Database
    with Database(Path(sys.argv[1])).write() as connection:
        print("held", flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("is_link", siblings([True, False], keep=1))
def test_what_a_killed_process_spilled_goes_with_the_next_write(path, is_link):
    """Through a link, to the disk that it leads to; while the process lives, its rows stay."""
    place = path.parent.parent / "larger disk" if is_link else path.parent
    other = path.with_name("other.duckdb")
    if is_link:
        place.mkdir()
        for database in (path, other):
            database.with_name(f"{database.name}.tmp").symlink_to(place, target_is_directory=True)
    with in_another_process(HOLD, path) as process:
        [mark] = place.glob(f"*{process.pid}-*/{MARK}")
        spilled = made(mark.with_name(SPILLED))
        write(other)
        assert spilled.exists()
    write(path)
    assert not spilled.parent.exists()


STAGE = HOLD.replace("write()", "staging()")


def test_what_a_load_spilled_that_was_killed_while_it_staged_goes_with_the_next_staging(path):
    """Otherwise a load that is killed and started again would fill the disk, a try at a time."""
    with in_another_process(STAGE, path) as process:
        [mark] = path.parent.glob(f"*{process.pid}-*/{MARK}")
        spilled = made(mark.with_name(SPILLED))
        with Database(path).staging():
            assert spilled.exists()
    with Database(path).staging():
        assert not spilled.parent.exists()


def test_what_an_earlier_version_spilled_goes_with_its_process(path, dead):
    """Its folders have no mark, so the process id decides."""
    place = path.with_name("x.duckdb.tmp")
    gone = made(place / f"{dead}-{HEX}" / SPILLED)
    kept = made(place / f"{os.getpid()}-{HEX}" / SPILLED)
    write(path)
    assert (gone.parent.exists(), kept.exists()) == (False, True)


def test_files_whose_names_resemble_drafts_stay(path):
    """Only names that were made here go: 32 hexadecimal digits and `.new`."""
    theirs = [
        made(path.with_name(name))
        for name in (
            "x.duckdb.new",
            "x.duckdb.2024.new",
            "x.duckdb.mine.new.wal",
            f"x.duckdb.{HEX}.newer",
            "x.duckdb.lock.holder.new",
        )
    ]
    ours = made(path.with_name(f"x.duckdb.{HEX}.new"))
    write(path)
    assert [file.read_text() for file in theirs] == ["mine"] * len(theirs)
    assert not ours.exists()


def test_a_file_in_the_place_of_the_note_stays(path):
    """The file is kept and the load succeeds, though its process is then not named."""
    note = made(note_path(path))
    write(path)
    assert note.read_text() == "mine"


def test_a_link_in_the_place_of_a_draft_is_not_followed(path):
    """The file that the link names is not written to."""
    target = made(path.with_name("diary.txt"))
    for name in ("x.duckdb.new", "x.duckdb.lock.holder.new"):
        path.with_name(name).symlink_to(target)
    write(path)
    assert target.read_text() == "mine"


def test_temporary_folders_of_others_stay(tmp_path, monkeypatch):
    """The sweep takes folders with our mark alone, and none whose mark is held."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    theirs = made(tmp_path / f"{PREFIX}analysis" / "thesis.txt")
    linked = tmp_path / f"{PREFIX}abcdefgh"
    linked.mkdir()
    (linked / MARK).symlink_to(theirs)
    left = made(tmp_path / f"{PREFIX}killed__" / "rows.duckdb")
    made(left.with_name(MARK), "")
    used = tmp_path / f"{PREFIX}in_use__"
    used.mkdir()
    lock = hold(used / MARK)
    sweep()
    assert theirs.read_text() == "mine"
    assert set(tmp_path.glob(f"{PREFIX}*")) == {theirs.parent, linked, used}
    lock.release()
