"""The request budget of several machines: one count, one clock, no slot of a dead machine."""

import re
import subprocess
import sys
from dataclasses import replace

import psycopg2
import pytest

from mixpanel_assets.client import BudgetSettings
from mixpanel_assets.client.budget import Budget
from mixpanel_assets.errors import (
    ConfigError,
    ConnectionFailedError,
    DatabaseLockedError,
    RateLimitError,
    StorageError,
)
from mixpanel_assets.rules.postgres import PostgresServer, lock_number
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.pooler import pooled

PROJECT = "us-12345"
SCHEMA = "mixpanel_us_12345"
ZONES = ["UTC", "Asia/Tokyo", "America/St_Johns", "Pacific/Apia"]
AHEAD = [0, 4, -4, 90_000]  # seconds

# Machines whose clocks are wrong: `datetime` and `time` are replaced before anything imports them.
# They are one process each, forked from one, so that the imports are paid for once.
MACHINES = """
import datetime, os, sys, time
ahead, true_time = 0.0, time.time
time.time = lambda: true_time() + ahead
time.time_ns = lambda: int(time.time() * 1e9)
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
    @classmethod
    def utcnow(cls):
        return cls.now(datetime.UTC).replace(tzinfo=None)
datetime.datetime = Clock

import psycopg2
from mixpanel_assets.client import BudgetSettings
from mixpanel_assets.client.budget import Budget
settings = BudgetSettings(
    state_dir=sys.argv[1], export_per_hour=6, export_per_second=1000, window_seconds=0.5
)
children = []
for machine in sys.argv[2:]:
    if not (child := os.fork()):
        seconds, os.environ["PGTZ"] = machine.split()
        ahead = float(seconds)
        for _ in range(6):
            with Budget(settings, "us-12345").permits("export", "it").permit():
                pass
        os._exit(0)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""
HOLDING = """
import sys
from mixpanel_assets.client import BudgetSettings
from mixpanel_assets.client.budget import Budget
settings = BudgetSettings(query_at_once=1, state_dir=sys.argv[1])
with Budget(settings, "us-12345").permits("query", "it").permit():
    print("holding", flush=True)
    sys.stdin.readline()
"""


def on(postgres, **given):
    return BudgetSettings(state_dir=postgres.url, **given)


def impatient(settings, project=PROJECT):
    return Budget(settings, project, max_wait_seconds=1)


def take(budget, api="query", **kind):
    with budget.permits(api, "it", **kind).permit():
        pass


def test_machines_whose_clocks_and_zones_differ_never_exceed_the_budget(postgres):
    """No window holds more than six, by the server's clock, in which every request is dated."""
    take(impatient(on(postgres)), "query")  # makes the tables
    postgres.run(f"""
        CREATE TABLE taken (at BIGINT, began TIMESTAMPTZ, ended TIMESTAMPTZ);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO public.taken
            VALUES (NEW.item_timestamp, transaction_timestamp(), clock_timestamp());
            RETURN NEW;
        END $$;
        CREATE TRIGGER note BEFORE INSERT ON {SCHEMA}.export
        FOR EACH ROW EXECUTE FUNCTION note();
    """)
    machines = [f"{ahead} {zone}" for ahead, zone in zip(AHEAD, ZONES, strict=True)]
    subprocess.run([sys.executable, "-c", MACHINES, postgres.url, *machines], check=True)
    # The server's clock is read again by the trigger, in the same transaction.
    assert postgres.run("""
        SELECT count(*), bool_and(at BETWEEN floor(extract(epoch FROM began) * 1000)
                                         AND extract(epoch FROM ended) * 1000) FROM taken
    """) == [(24, True)]
    sent = [at for (at,) in postgres.run("SELECT at FROM taken ORDER BY at")]
    assert all(later - first > 500 for first, later in zip(sent, sent[6:], strict=False))


def test_the_slot_of_a_killed_process_is_free_at_once(postgres):
    """Its session ends with it; no time has to pass."""
    settings = on(postgres, query_at_once=1)
    command = [sys.executable, "-c", HOLDING, postgres.url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout.readline() == "holding\n"
        with pytest.raises(RateLimitError, match="1 query requests are running"):
            take(Budget(settings, PROJECT, max_wait_seconds=0.1))
        process.kill()
        take(Budget(settings, PROJECT, max_wait_seconds=30))


def test_slots_are_counted_over_all_clients_and_given_back(postgres):
    """Three of three are taken; each is free again after its request, in whatever order."""
    settings = on(postgres, query_at_once=3)
    one, other = Budget(settings, PROJECT), Budget(settings, PROJECT)
    for _ in range(2):
        releases = [budget.free_slot("query") for budget in (one, other, one)]
        assert all(releases)
        assert other.free_slot("query") is None
        assert Budget(settings, "eu-1").free_slot("query")  # another project has slots of its own
        for release in releases:
            release()


def test_the_budget_and_its_refusals_are_shared(postgres):
    """What one client has spent, and a 429 that one got, hold for the others; usage says so."""
    settings = on(postgres, query_per_hour=2, export_per_hour=2)
    one, other = impatient(settings), impatient(settings)
    take(one)
    assert [(api.api, api.used, api.left) for api in other.usage()] == [
        ("export", 0, 2),
        ("query", 1, 1),
    ]
    take(other)
    with pytest.raises(RateLimitError, match="all 2 query requests"):
        take(one)
    request = one.permits("export", "it")
    with request.permit() as permit:
        request.refused(permit, RateLimitError(retry_after=100))
    with pytest.raises(RateLimitError, match="Mixpanel answered 429"):
        take(other, "export")
    assert other.usage()[0].blocked_until
    take(impatient(settings, "us-54321"))


def test_a_wait_for_the_ledger_names_its_holder_and_ends(postgres):
    """A process that holds the lock for too long is named with its machine."""
    with postgres.connect(application_name="mixpanel_assets worker-7 812 dagster api") as session:
        session.cursor().execute("SELECT pg_advisory_lock(%s)", (lock_number(SCHEMA),))
        with pytest.raises(DatabaseLockedError, match=r"process 812 \(dagster api on worker-7"):
            take(impatient(on(postgres)))
    session.close()


def test_a_restarted_server_is_used_again(postgres):
    """Sessions that the server has ended are replaced before the next request."""
    budget = impatient(on(postgres))
    take(budget)
    postgres.run("""
        SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
    """)
    take(budget)
    assert budget.usage()[1].used == 2


def test_a_closed_client_leaves_no_session(postgres):
    """The server counts sessions, so no client keeps one after its end."""
    budget = impatient(on(postgres))
    take(budget)
    budget.close()
    assert postgres.run("""
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'
    """) == [(0,)]
    assert not budget.store._spare
    take(budget)  # and still works


def test_a_server_that_cannot_be_reached_is_named_without_its_password(postgres):
    """The error comes soon, says what to do, and no request is counted by this process alone."""
    closed = replace(postgres, port=1)
    for there, password in (
        (closed, postgres.password),
        (replace(postgres, password="wr0ng"), "wr0ng"),
    ):
        with pytest.raises(ConnectionFailedError) as caught:
            take(impatient(on(there)))
        assert f"postgresql://{there.user}@{there.host}:{there.port}/{there.dbname}" in str(
            caught.value
        )
        assert "MP_STATE_DIR" in str(caught.value)
        assert password not in str(caught.value)


@pytest.mark.parametrize(
    "location",
    [
        "postgresql://u:hidden@word@host/db",  # each of them: a character that must be quoted
        "postgresql://u:hidden/word@host/db",
        "postgresql://u:12/hidden@host/db",
        "postgresql://u:hidden%word@host/db",
        "postgresql://u@host/db&password=hidden",
        "postgresql://u@host;password=hidden/db",
        "postgresql+psycopg2://u:hidden@host/db",
        "mysql://u:hidden@host/db",
        "redis://:hidden@host",
    ],
)
def test_a_location_that_is_none_is_refused_without_showing_it(location):
    """Each message says how a location is written, and none repeats a part of the password."""
    with pytest.raises(ConfigError, match="postgresql://user@host:5432/database") as caught:
        take(impatient(BudgetSettings(state_dir=location)))
    assert "hidden" not in str(caught.value)
    assert "word" not in re.sub("password", "", str(caught.value))


def test_a_password_is_in_no_representation(postgres):
    """Neither the settings nor the store show it."""
    settings = Settings(state_dir=postgres.url)
    shown = f"{settings!r} {settings.budget()!r} {Budget(settings.budget(), PROJECT).store}"
    assert postgres.password not in shown
    assert f"{postgres.host}:{postgres.port}/{postgres.dbname}, schema {SCHEMA}" in shown


def test_the_password_can_stay_out_of_the_location(postgres, monkeypatch, tmp_path):
    """It comes from PGPASSWORD, or from the file that PGPASSFILE names."""
    location = replace(postgres, password="").url.replace(":@", "@")
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    take(impatient(BudgetSettings(state_dir=location)))
    monkeypatch.delenv("PGPASSWORD")
    (tmp_path / "passes").write_text(f"*:*:*:*:{postgres.password}\n")
    (tmp_path / "passes").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "passes"))
    take(impatient(BudgetSettings(state_dir=location)))


def test_a_user_without_rights_is_told_so_unless_the_schema_is_there(postgres):
    """An administrator may make the schema, and give this user no more than its tables."""
    name = f"u{postgres.dbname}"
    postgres.run(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    try:
        limited = replace(postgres, user=name, password="secret")
        with pytest.raises(StorageError, match="right to create a schema"):
            take(impatient(on(limited)))
        postgres.run(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}")
        take(impatient(on(limited)))
        assert impatient(on(postgres)).usage()[1].used == 1
    finally:
        postgres.run(f"DROP OWNED BY {name}")
        postgres.run(f"DROP ROLE {name}")


@pytest.mark.parametrize("by_transaction", [True, False])
def test_a_pooler_of_transactions_is_refused(postgres, by_transaction):
    """It would hand the session, and with it the slots, to other clients; sessions are pooled."""
    with pooled(lambda: psycopg2.connect(postgres.url), by_transaction=by_transaction) as port:
        budget = impatient(on(replace(postgres, port=port)))
        if by_transaction:
            with pytest.raises(ConfigError, match="pooler of transactions"):
                take(budget)
        else:
            take(budget)
            budget.close()


def test_the_driver_is_named_where_it_is_missing(monkeypatch):
    """Without the extra, the message says how to install it."""
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(ConfigError, match=r"pip install 'mixpanel-assets\[lake\]'"):
        take(impatient(BudgetSettings(state_dir="postgresql://h/d")))


def test_a_server_shows_its_location_without_secrets():
    """The location is shown without secrets, whatever parts it lacks."""
    shown = {
        "postgresql://": "postgresql:///",
        "postgres://u:p@h/d?sslpassword=x": "postgresql://u@h/d",
        "postgresql://h:1,i:2/d?password=x": "postgresql://h,i:1,2/d",
        "postgresql:///d?host=/run/pg": "postgresql:///run/pg/d",
    }
    assert {location: str(PostgresServer(location, "X")) for location in shown} == shown
