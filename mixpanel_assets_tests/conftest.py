"""The emulator, clients of it, and an environment without settings."""

import gc
import importlib.util
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, cast

import dagster as dg
import duckdb
import pytest

from mixpanel_assets.client import (
    BudgetSettings,
    Credentials,
    MixpanelAPIClient,
    RetryPolicy,
    make_credentials,
)
from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.rules.location import LakeLocation, Location
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests import servers
from mixpanel_assets_tests.forked import ForkedMp
from mixpanel_assets_tests.instances import Instances
from mixpanel_assets_tests.laws import forget_the_clock

forget_the_clock()

# A shell that starts jobs in the background ignores it for them and for what they start, and tests
# interrupt processes.
signal.signal(signal.SIGINT, signal.default_int_handler)

START = date(2024, 1, 1)
IMPATIENT = RetryPolicy(max_retries=2, first_wait_seconds=0.001)
PLENTY = BudgetSettings(
    export_per_hour=100_000,
    export_per_second=1_000,
    query_per_hour=100_000,
    lexicon_per_minute=100_000,
    refusal_wait_seconds=0.001,
)


def resource_of(emulator: Emulator, **changes: Any) -> MixpanelResource:
    """Return the resource of an emulator's project."""
    return MixpanelResource(
        username=emulator.username,
        secret=emulator.secret,
        project_id=str(emulator.project_id),
        api_base_url=emulator.base_url,
        **changes,
    )


# What `--quick` runs: no Dagster, few processes, and few of the thousands of loads.
QUICK_ROOMS = ("auth", "client", "emulator", "results", "rules")
QUICK_MODULES = (
    "cli/test_output.py",
    "loading/test_plan.py",
    "test_contract.py",
    "test_control_characters.py",
    "test_definitions.py",
    "test_known_calls.py",
    "test_layers.py",
    "test_release.py",
    "test_site.py",
    "warehouse/test_clocks.py",
    "warehouse/test_inspector.py",
    "warehouse/test_load.py",
    "warehouse/test_macros.py",
    "warehouse/test_odd_lines.py",
    "warehouse/test_profiles.py",
    "warehouse/test_project.py",
    "warehouse/test_slices.py",
    "warehouse/test_tables.py",
)

# Modules whose tests run on a lake as well with `--lake`, and those that always do.
LAKE_MODULES: dict[str, tuple[str, ...]] = {
    "defs/assets/test_events.py": (
        "test_materializing_a_day_twice_leaves_one_copy",
        "test_another_projects_rows_are_never_mixed_in",
    ),
    "defs/assets/test_failures.py": (),
    "defs/assets/test_filtered_events.py": ("test_stored_queries_answer_from_it",),
    "defs/assets/test_profiles.py": ("test_todays_partition_is_a_full_snapshot",),
    "defs/assets/test_queries.py": ("test_a_downstream_asset_gets_the_slice_of_its_day",),
    "defs/test_io_managers.py": ("test_columns_are_matched_by_name",),
    "loading/test_certificate.py": (),
    "loading/test_events.py": (),
    "loading/test_fetcher.py": (),
    "test_fault_matrix.py": (),
    "warehouse/test_clocks.py": (),
    "warehouse/test_inspector.py": ("test_the_whole_is_said_in_a_few_words",),
    "warehouse/test_load.py": (
        "test_an_event_becomes_a_row_with_every_column",
        "test_properties_read_back_as_sent",
        "test_a_named_table_has_the_documented_columns",
        "test_a_zone_change_moves_rows_by_up_to_two_days",
        "test_a_day_before_the_plans_horizon_is_noted_and_keeps_its_rows",
    ),
    "warehouse/test_odd_lines.py": ("test_lines_that_no_table_holds_are_in_quarantine",),
    "warehouse/test_profile_days.py": (),
    "warehouse/test_profile_tables.py": (),
    "warehouse/test_profiles.py": (
        "test_values_keep_their_digits",
        "test_a_partial_snapshot_is_merged",
        "test_current_profiles_are_the_newest_ones",
    ),
    "warehouse/test_stored_queries.py": ("test_coverage_is_that_of_the_project",),
    "warehouse/test_thinning.py": ("test_the_newest_day_stays",),
    "warehouse/test_vanished.py": (
        "test_150_rows_vanish_while_50_late_ones_arrive",
        "test_a_move_survives_a_kill_between_the_days",
    ),
    "warehouse/test_vanished_lines.py": (),
}
# Of these, the tests that also keep the files of the lake in an object store.
ON_S3 = (
    "test_an_event_becomes_a_row_with_every_column",
    "test_materializing_a_day_twice_leaves_one_copy",
    "test_a_partial_snapshot_is_merged",
)
# Wheels of its extensions exist for one version of DuckDB.
LAKE_ONLY = ("test_lake.py", "test_lake_writers.py", "test_moving.py")
HAS_LAKE = importlib.util.find_spec("duckdb_extension_ducklake") is not None
SERVERS = pytest.StashKey[servers.Run]()

MEMORY_DISK = Path("/dev/shm")
MEMORY_DISK_BYTES = 2 << 30


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--quick` and `--slow`."""
    parser.addoption("--quick", action="store_true", help="run what takes little time alone")
    parser.addoption("--slow", action="store_true", help="run the proofs that take long, too")
    parser.addoption(
        "--lake", action="store_true", help="run every test that can on a DuckLake, too"
    )


@pytest.hookimpl(trylast=True)  # after the reporter was registered
def pytest_configure(config: pytest.Config) -> None:
    """Keep temporary files in memory where there is room, and print failures at once."""
    if not hasattr(config, "workerinput"):  # the servers of a run are shared by its workers
        config.stash[SERVERS] = run = servers.Run()
        os.environ[servers.RUN] = str(run.folder)
    # Thousands of small databases, each flushed to the disk several times, wait for the disk.
    is_open = "TMPDIR" not in os.environ and os.access(MEMORY_DISK, os.W_OK)
    if is_open and shutil.disk_usage(MEMORY_DISK).free > MEMORY_DISK_BYTES:
        os.environ["TMPDIR"] = str(MEMORY_DISK)
        tempfile.tempdir = None
    if terminal := config.pluginmanager.get_plugin("terminalreporter"):
        config.pluginmanager.register(FailuresAtOnce(terminal))


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers that tests have started."""
    if run := config.stash.get(SERVERS, None):
        run.close()


class FailuresAtOnce:
    """Prints each failure when it happens; pytest prints them again after the last test."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self.terminal = terminal

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a failure below the line of dots."""
        if report.failed:
            self.terminal.line("")
            self.terminal.section(f"{report.nodeid} ({report.when})", "_", red=True)
            self.terminal.line(report.longreprtext)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests without `--slow`, lake tests without `--lake`; with `--quick`, more."""
    left_out = {
        item
        for item in items
        if not _is_asked_for(item)
        or (config.getoption("--quick") and not _is_quick(item))
        or (not HAS_LAKE and _needs_lake(item))
    }
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """Let no garbage collection walk the modules and the thousands of tests again and again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say that tests of the lake did not run, where its extensions do not fit DuckDB."""
    if not HAS_LAKE:
        terminalreporter.line(f"without the lake: no extensions for DuckDB {duckdb.__version__}")


def _needs_lake(item: pytest.Item) -> bool:
    """Return whether a test loads the extensions of the extra `lake`."""
    fixtures = getattr(item, "fixturenames", ())
    params = item.callspec.params if hasattr(item, "callspec") else {}
    is_on_lake = not {"lake", "s3"}.isdisjoint([params.get("place"), params.get("module_place")])
    starts_one = item.path.name in LAKE_ONLY and "postgres" in fixtures
    has_one = not {"lake", "lake_on_s3"}.isdisjoint(fixtures)
    return bool(is_on_lake or starts_one or has_one)


def _is_asked_for(item: pytest.Item) -> bool:
    """Return whether a test is quick, or an option selects one of its marks."""
    marks = [name for name in ("slow", "lake") if item.get_closest_marker(name)]
    return not marks or any(item.config.getoption(f"--{name}") for name in marks)


def _is_quick(item: pytest.Item) -> bool:
    """Return whether a test is of a room or a module that takes little time."""
    place = item.path.relative_to(Path(__file__).parent)
    return place.parts[0] in QUICK_ROOMS or place.as_posix() in QUICK_MODULES


@pytest.fixture(autouse=True, scope="session")
def coverage_of_this_process_alone() -> None:
    """In processes that tests start, it would cost a third more time and find little."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        del os.environ[name]


@pytest.fixture(autouse=True, scope="session")
def one_thread_for_each_database(request: pytest.FixtureRequest) -> Iterator[None]:
    """A thread for each core would take a third more time for the few rows of a test.

    So would starting DuckDB for each connection: its instances are used again. Processes that
    tests start use every core and start DuckDB each time, and so do all tests with `--slow`.
    """
    if request.config.getoption("--slow"):
        yield
        return
    instances = Instances(threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duckdb, "connect", instances.connect)
        yield
    instances.close()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the machine's settings, home and network out of every test."""
    for name in os.environ:
        if name.startswith(("MP_", "DAGSTER_")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("EXPORT_PER_HOUR", "EXPORT_PER_SECOND", "QUERY_PER_HOUR", "LEXICON_PER_MINUTE"):
        monkeypatch.setenv(f"MP_BUDGET_{name}", "1000")
    monkeypatch.setenv("MP_RETRY_WAIT_SECONDS", "0.01")
    monkeypatch.setenv("MP_OP_RETRIES", "0")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "yes")


@pytest.fixture(scope="session")
def forked_mp() -> Iterator[ForkedMp]:
    """Runs `mp` in a process of its own, without the time that its imports take."""
    with ForkedMp() as forked:
        yield forked


@pytest.fixture(scope="session")
def postgres_server() -> servers.Postgres:
    """The PostgreSQL of this test run; `postgres` is a database of a test's own."""
    return servers.postgres_of(Path(os.environ[servers.RUN]))


@pytest.fixture
def postgres(postgres_server: servers.Postgres) -> Iterator[servers.Postgres]:
    """An empty database of PostgreSQL, deleted after the test."""
    with postgres_server.new_database() as database:
        yield database


@pytest.fixture(scope="session")
def s3() -> servers.S3:
    """The S3 server of this test run; each test writes to a bucket of its own."""
    return servers.s3_of(Path(os.environ[servers.RUN]))


@pytest.fixture(scope="session")
def shared_instance() -> Iterator[dg.DagsterInstance]:
    """Where Dagster keeps its runs: in memory. To make one takes longer than most runs of tests."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def instance(shared_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """The shared instance, without a history."""
    shared_instance.wipe()
    return shared_instance


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[Emulator]:
    """Two weeks of the small shop."""
    with Emulator(EmulatorSettings(start=START, days=14)) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared_emulator: Emulator) -> Iterator[Emulator]:
    """The shared emulator, in good health before and after."""
    shared_emulator.faults.clear()
    yield shared_emulator
    shared_emulator.faults.clear()


@pytest.fixture
def credentials(emulator: Emulator) -> Credentials:
    """What the emulator accepts."""
    return make_credentials(
        username=emulator.username, secret=emulator.secret, project_id=str(emulator.project_id)
    )


@pytest.fixture
def client(emulator: Emulator, credentials: Credentials) -> Iterator[MixpanelAPIClient]:
    """A client of the emulator that does not wait long."""
    with MixpanelAPIClient(
        credentials, api_base_url=emulator.base_url, retries=IMPATIENT, budget=PLENTY
    ) as client:
        yield client


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of `LAKE_MODULES` on a file and on a lake; without `--lake`, few on a lake."""
    places = [one for one in ("place", "module_place") if one in metafunc.fixturenames]
    name = Path(metafunc.module.__file__).relative_to(Path(__file__).parent).as_posix()
    tests = LAKE_MODULES.get(name, ())
    asked = metafunc.config.getoption("--lake")
    on_lake = metafunc.function.__name__ in tests or asked
    is_of_file = metafunc.definition.get_closest_marker("on_file") is not None
    if not places or name not in LAKE_MODULES or is_of_file or not on_lake:
        return
    lake = pytest.param("lake", marks=pytest.mark.lake if asked else ())  # slow ones, too
    kinds = ["file", lake, *(["s3"] if metafunc.function.__name__ in ON_S3 else [])]
    metafunc.parametrize(places[0], kinds, indirect=True)


@pytest.fixture(scope="module")
def module_place(request: pytest.FixtureRequest) -> str:
    """Return the kind of the place that the tests of a module share: `file` or `lake`."""
    return getattr(request, "param", "file")


@pytest.fixture
def lake(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LakeLocation]:
    """An empty lake with its files on disk, deleted after the test; PGPASSWORD is set for it."""
    server = request.getfixturevalue("postgres_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    servers.make_lake_template(Path(os.environ[servers.RUN]), server)
    with servers.new_lake(server, f"{tmp_path}/lake/") as location:
        yield location


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """Where the database of a test is: a file that is not there yet, or an empty lake."""
    kind = getattr(request, "param", "file")
    if kind == "file":
        return tmp_path / "warehouse.duckdb"
    return cast(LakeLocation, request.getfixturevalue("lake" if kind == "lake" else "lake_on_s3"))


@pytest.fixture
def lake_on_s3(
    postgres_server: servers.Postgres, s3: servers.S3, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LakeLocation]:
    """An empty lake with its files in an object store, in a bucket of its own."""
    servers.make_lake_template(Path(os.environ[servers.RUN]), postgres_server)
    for name, value in {**postgres_server.environment, **s3.environment}.items():
        monkeypatch.setenv(name, value)
    with servers.new_lake(postgres_server, f"s3://{uuid.uuid4()}/lake/") as location:
        yield location


@pytest.fixture
def settings(emulator: Emulator, place: Location, tmp_path: Path) -> Settings:
    """Settings that point at the emulator and at a database of this test's own."""
    # A lake has no folder on this machine, so its responses would be in that of this project.
    spool = {} if isinstance(place, Path) else {"spool_dir": tmp_path / "spool"}
    return Settings(api_base_url=emulator.base_url, database=place, **spool)


@pytest.fixture
def asked(emulator: Emulator) -> Callable[[], list[Any]]:
    """Return the days of each export request since the test began."""
    before = len(emulator.requests)
    return lambda: [e.days for e in emulator.requests[before:] if e.path == "/api/2.0/export"]
