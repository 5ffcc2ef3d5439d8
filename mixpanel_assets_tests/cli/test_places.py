"""What MP_DATABASE may name: anything else is named in one sentence, before a request is spent."""

import os
import shutil
import sqlite3

import duckdb
import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.auth import ConfigManager
from mixpanel_assets_tests.conftest import START
from mixpanel_assets_tests.laws import siblings

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
    a_foreign_lock: "has the name of a lock",
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


# Another kind with the same words stands for each of these.
SIBLINGS = (a_short_text, a_device, a_damaged_file)


@pytest.mark.parametrize(
    "kind",
    siblings(sorted(KINDS, key=SIBLINGS.__contains__), keep=len(KINDS) - len(SIBLINGS)),
    ids=lambda kind: kind.__name__,
)
def test_what_is_no_database_is_named_before_a_request_and_left_alone(
    mp_here, emulator, tmp_path, loaded, kind
):
    """Every command prints one sentence, which names no extension and claims nothing stored."""
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
    """Every command says so, with and without copies for readers."""
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
    """It is printed once; the load continues, and the file is kept."""
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


NO_CREDENTIALS = {"MP_USERNAME": "", "MP_SECRET": "", "MP_PROJECT_ID": "", "MP_REGION": ""}
OTHERS = (
    ({"MP_PROJECT_ID": "999"}, "project 999 (us)"),
    ({"MP_PROJECT_ID": "12345", "MP_REGION": "EU "}, "project 12345 (eu)"),
    ({"MP_REGION": "in"}, "project 777 (in)"),
    ({"MP_ACCOUNT": "other"}, "project 777 (us)"),
)


@pytest.fixture
def place(loaded, tmp_path):
    """A database of project 12345, in use."""
    return shutil.copy(loaded, tmp_path / "shop.duckdb")


@pytest.fixture
def accounts():
    """A config file of this test's own."""
    return ConfigManager()


def add(accounts, name, project_id, **given):
    accounts.add_account(
        name, "name.mp-service-account", "secret-secret", project_id, "us", **given
    )


@pytest.mark.parametrize("way", ["MP_DATABASE", "--database"])
def test_another_projects_file_is_not_read_in_the_shell(mp_here, accounts, place, way):
    """Whatever names the file, and whatever names the project or the region."""
    before = place.read_bytes()
    add(accounts, "other", "777")
    for options in ({}, {"MP_ACCOUNT": "other"}, {"MP_ACCOUNT": "", "MP_PROJECT_ID": "999"}):
        done = run_at(mp_here, READING[0], place, way, **options)
        assert (done.code, "was expected" in done.stderr) == (1, True), options
    for others, named in OTHERS:
        is_first = (way, others) == ("MP_DATABASE", OTHERS[0][0])
        commands = READING if is_first else READING[:1]
        for command in commands:
            done = run_at(mp_here, command, place, way, **others)
            assert done.code == 1, command
            assert f"holds project 12345 (us), but {named} was expected" in done.stderr
            assert "MP_PROJECT_ID and MP_REGION" in done.stderr
    assert place.read_bytes() == before


def test_a_region_counts_without_a_project(mp_here, place):
    """A named data view is sent; the default one is not."""
    done = run_at(mp_here, READING[0], place, "MP_DATABASE", MP_REGION="in")
    assert "holds project 12345 (us), but project 12345 (in) was expected" in done.stderr


@pytest.mark.parametrize("way", ["MP_DATABASE", "--database"])
def test_ones_own_file_is_read_however_its_project_is_written(mp_here, accounts, place, way):
    """And any file where nothing names a project, or the config file cannot say it."""
    own = ({}, {"MP_PROJECT_ID": " 12345\n"}, {"MP_PROJECT_ID": "012345", "MP_REGION": "US"})
    for given in own:
        assert run_at(mp_here, READING[0], place, way, **given).code == 0
    assert run_at(mp_here, READING[0], place, way).code == 0
    add(accounts, "one", "12345", default=False)
    add(accounts, "two", "777", default=False)
    accounts.config_path.write_text(accounts.config_path.read_text().replace("account =", "none ="))
    assert run_at(mp_here, READING[0], place, way).code == 0
    assert run_at(mp_here, READING[0], place, way, MP_ACCOUNT="one").code == 0


def test_a_projects_number_that_is_none_is_not_repeated(mp_here, place):
    """It may be the secret, pasted into the wrong place."""
    done = run_at(mp_here, READING[0], place, "MP_DATABASE", MP_PROJECT_ID="my-secret-words")
    assert (done.code, "must be the project's number" in done.stderr) == (1, True)
    assert "my-secret" not in done.stderr


def run_at(mp_here, command, place, way, **changes):
    if way == "MP_DATABASE":
        return mp_here(*command, **{**NO_CREDENTIALS, "MP_DATABASE": str(place), **changes})
    return mp_here(*command, "--database", str(place), **{**NO_CREDENTIALS, **changes})
