"""`mp` with a lake: the same commands, and no password on any stream or in any file."""

import json

import pytest

from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.rules.location import LakeLocation, parse_location
from mixpanel_assets.settings import load_settings
from mixpanel_assets_tests.servers import Postgres

DAYS = ("--from", "2024-01-01", "--to", "2024-01-03")
WRONG = "planted-9c2-password"
S3_SECRET = "planted-4e1-secret"


@pytest.fixture
def on_lake(lake: LakeLocation, postgres_server: Postgres) -> dict[str, str]:
    """The settings of a user who writes the password into the location."""
    return {
        "MP_DATABASE": f"{lake} password={postgres_server.password}",
        "MP_DATA_PATH": lake.data_path,
        "MP_S3_KEY_ID": "key",
        "MP_S3_SECRET": S3_SECRET,
        "PGPASSWORD": "",
    }


def test_the_commands_work_and_show_no_password(mp, on_lake, postgres_server, lake, tmp_path):
    """Load, look, query, check, tidy and move; wrong passwords are refused in a sentence."""
    commands = [
        ("-v", "sync", *DAYS),
        ("inspect", "info"),
        ("query", "sql", "SELECT count(*) AS n FROM events"),
        ("query", "sql", "FROM duckdb_databases()"),
        ("query", "sql", "FROM duckdb_secrets()"),
        ("query", "sql", "FROM nothing"),
        ("query", "sql", "FROM 's3://bucket/x.parquet'"),
        ("doctor",),
        ("tidy",),
        ("migrate", "--to", str(tmp_path / "copy.duckdb")),
    ]
    ran = [mp(*command, **on_lake) for command in commands]
    codes = [one.returncode for one in ran]
    assert codes == [0, 0, 0, 0, 0, 3, 3, codes[7], 0, 0], [one.stderr for one in ran]
    assert json.loads(ran[1].stdout)["path"] == str(parse_location(str(lake)))
    assert json.loads(ran[2].stdout) == [{"n": 981}]
    assert "PostgreSQL 18" in ran[7].stdout
    assert "can be written" in ran[7].stdout
    assert "both are equal" in ran[9].stdout
    wrong = {**on_lake, "MP_DATABASE": f"{lake} password={WRONG}"}
    refused = mp("inspect", "tables", **wrong)
    assert refused.returncode == 1
    assert "Set PGPASSWORD" in refused.stderr
    said = "".join(one.stdout + one.stderr for one in [*ran, refused])
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in (postgres_server.password, WRONG, S3_SECRET):
        assert secret not in said
        assert secret.encode() not in kept


def test_dagster_shows_no_password(on_lake, postgres_server, monkeypatch, emulator):
    """The configuration of the resources has the location alone, and a run finds the password."""
    for name, value in on_lake.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PGPASSWORD")
    definitions = build_definitions(settings=load_settings())
    [warehouse] = [one for one in definitions.resources.values() if hasattr(one, "known_database")]
    shown = f"{warehouse!r} {vars(warehouse)}"
    assert postgres_server.password not in shown
    assert warehouse.known_database.password == postgres_server.password
    assert {"tidy_lake"} <= {job.name for job in definitions.jobs}
    assert {"tidy_lake"} <= {schedule.name for schedule in definitions.schedules}
    assert postgres_server.password not in repr(load_settings())
