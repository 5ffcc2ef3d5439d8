"""What MP_DATABASE may name: anything else is named in one sentence, before a request is spent."""

import os
import shutil
import sqlite3

import duckdb
import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.accounts import ConfigManager
from mixpanel_assets_tests.conftest import START

LOADS = (
    ("sync", "--from", "2024-01-03", "--to", "2024-01-03"),
    ("fetch", "events", "visits", "--from", "2024-01-03", "--to", "2024-01-03"),
    ("fetch", "events", "--from", "2024-01-03", "--to", "2024-01-03"),
    ("fetch", "profiles", "people"),
    ("fetch", "profiles", "people", "--replace"),
)
READS = (("inspect", "info"), ("sql", "SELECT 1"))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, shared_emulator):
    """A database with a day in it, and its snapshot."""
    from mixpanel_assets.client import make_credentials
    from mixpanel_assets.settings import Settings

    path = tmp_path_factory.mktemp("loaded") / "warehouse.duckdb"
    credentials = make_credentials(
        username=shared_emulator.username, secret=shared_emulator.secret, project_id="12345"
    )
    settings = Settings(api_base_url=shared_emulator.base_url, database=path, state_dir=":memory:")
    with Workspace(credentials=credentials, settings=settings) as workspace:
        workspace.sync_events(START, START)
    return path


def a_sqlite_file(path, loaded):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 42 AS answer")
    connection.close()


def a_text(path, loaded):
    path.write_text("my notes\n" * 1000)


def a_short_text(path, loaded):
    path.write_text("note")


def a_folder(path, loaded):
    path.mkdir()


def a_pipe(path, loaded):
    os.mkfifo(path)


def a_device(path, loaded):
    path.symlink_to("/dev/null")


def a_link_to_nowhere(path, loaded):
    path.symlink_to(path.with_name("disk") / "warehouse.duckdb")


def links_in_a_circle(path, loaded):
    path.symlink_to(path)


def cut_at(number):
    def a_cut_file(path, loaded):
        path.write_bytes(loaded.read_bytes()[:number])

    return a_cut_file


def a_damaged_file(path, loaded):
    content = bytearray(loaded.read_bytes())
    content[4096:4160] = content[8192:8256] = bytes(64)
    path.write_bytes(content)


def a_foreign_log(path, loaded):
    shutil.copy(loaded, path)
    path.with_name(f"{path.name}.wal").mkdir()


def a_foreign_lock(path, loaded):
    path.with_name(f"{path.name}.lock").write_text("mine" * 100)
    path.with_name(f"{path.name}.writers").mkdir()


def changed_by(statement):
    def a_changed_file(path, loaded):
        shutil.copy(loaded, path)
        with duckdb.connect(path) as connection:
            connection.execute(statement)

    return a_changed_file


def tables_of_others(path, loaded):
    with duckdb.connect(path) as connection:
        connection.execute("CREATE SCHEMA mixpanel; CREATE TABLE mixpanel.events (id INTEGER)")


KINDS = {
    a_sqlite_file: "is not a DuckDB database",
    a_text: "is not a DuckDB database",
    a_short_text: "is not a DuckDB database",
    a_folder: "is a folder",
    a_pipe: "is a device, a pipe or a socket",
    a_device: "is a device, a pipe or a socket",
    a_link_to_nowhere: "which is not there",
    links_in_a_circle: "leads to itself",
    cut_at(100): "is damaged",
    cut_at(9000): "is damaged",
    a_damaged_file: "is damaged",
    a_foreign_log: "is damaged",
    a_foreign_lock: "in the way",
    changed_by("ALTER TABLE mixpanel.events ADD note TEXT"): "changed by hand",
    changed_by("ALTER TABLE mixpanel.profiles RENAME TO mine"): "changed by hand",
    changed_by("UPDATE mixpanel._project SET schema_version = 99"): "Upgrade mixpanel-assets",
    changed_by("UPDATE mixpanel._project SET project_id = '999'"): "holds project 999",
    tables_of_others: "it did not make them",
}
CAN_BE_READ = ("a_foreign_lock", "a_changed_file", "tables_of_others")


def kept_of(path):
    """Return what tells whether a file was changed."""
    found = path.lstat()
    return found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_no_database_is_named_before_a_request_and_left_alone(
    mp_here, emulator, tmp_path, loaded, kind
):
    """One sentence, whatever is asked; it speaks of no extension and claims nothing stored."""
    path = tmp_path / "own" / "warehouse.duckdb"
    path.parent.mkdir()
    kind(path, loaded)
    theirs = {file: kept_of(file) for file in path.parent.iterdir()}
    requests = len(emulator.requests)
    reads = READS if kind.__name__ not in CAN_BE_READ else ()
    for command in (*LOADS, *reads):
        done = mp_here(*command, MP_DATABASE=str(path))
        [said] = done.stderr.splitlines()
        assert KINDS[kind] in said, command
        assert not any(word in said for word in ("extension", "is stored", "Check the disk"))
        assert done.code in (1, 4), command
    assert len(emulator.requests) == requests
    assert {file: kept_of(file) for file in theirs} == theirs


def test_a_lost_database_is_told_before_a_request(mp_here, emulator, tmp_path, loaded):
    """Whatever is asked, and whether snapshots are kept or not."""
    path = tmp_path / "own" / "warehouse.duckdb"
    path.parent.mkdir()
    snapshot = path.with_name("warehouse.snapshot.duckdb")
    shutil.copy(loaded.with_name(snapshot.name), snapshot)
    before, requests = kept_of(snapshot), len(emulator.requests)
    for choice in ("auto", "off"):
        for command in (*LOADS, *READS, ("doctor",)):
            done = mp_here(*command, MP_DATABASE=str(path), MP_SNAPSHOT=choice)
            assert done.code != 0
            assert f"cp -p {snapshot} {path}" in done.stderr + done.stdout
    assert {request.path for request in emulator.requests[requests:]} <= {"/api/app/me"}
    assert kept_of(snapshot) == before
    assert not path.exists()


def test_a_file_at_the_snapshots_name_is_named_before_a_request(
    mp_here, emulator, tmp_path, caplog
):
    """Once; the load goes on, and the file stays."""
    path = tmp_path / "own" / "warehouse.duckdb"
    path.parent.mkdir()
    mine = path.with_name("warehouse.snapshot.duckdb")
    with duckdb.connect(mine) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 42 AS answer")
    before = kept_of(mine)
    for choice, times in (("auto", 1), ("off", 0)):
        caplog.clear()
        assert mp_here(*LOADS[0], MP_DATABASE=str(path), MP_SNAPSHOT=choice).code == 0
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len([one for one in said if str(mine) in one]) == times
        assert kept_of(mine) == before


READING = (
    ("inspect", "info"),
    ("inspect", "tables"),
    ("tables",),
    ("inspect", "schema", "-t", "events"),
    ("sql", "SELECT count(*) AS n FROM events"),
    ("query", "sql", "SELECT 1 AS n"),
    ("drop", "-t", "events", "--force"),
)


def test_another_projects_file_is_not_read_in_the_shell(mp_here, loaded, tmp_path):
    """MP_PROJECT_ID alone says whose data is asked for; so does a named account."""
    path = shutil.copy(loaded, tmp_path / "shop.duckdb")
    before = path.read_bytes()
    nobody = {"MP_USERNAME": "", "MP_SECRET": "", "MP_DATABASE": str(path)}
    for command in READING:
        done = mp_here(*command, **nobody, MP_PROJECT_ID="999")
        assert done.code == 1, command
        assert "holds project 12345 (us), but project 999 (us)" in done.stderr
    assert path.read_bytes() == before
    ConfigManager().add_account("other", "name.mp-service-account", "secret-secret", "777", "us")
    done = mp_here(*READING[0], **nobody, MP_PROJECT_ID="", MP_ACCOUNT="other")
    assert "but project 777 (us)" in done.stderr
    for command in READING[:-1]:
        assert mp_here(*command, **nobody, MP_PROJECT_ID="12345").code == 0, command
        assert mp_here(*command, **nobody, MP_PROJECT_ID="").code == 0, command
        elsewhere = (*command, "--database", str(path))
        assert mp_here(*elsewhere, **nobody, MP_PROJECT_ID="999").code == 0, command
