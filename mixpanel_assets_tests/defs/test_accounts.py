"""Saved accounts hold under Dagster as they do for `mp`."""

import json
import pwd
import subprocess
import sys
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from mixpanel_assets import ConfigManager, MixpanelResource
from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.errors import ConfigError, StorageError
from mixpanel_assets.settings import load_settings
from mixpanel_assets_tests.defs.assets.conftest import EVENTS, PROFILES
from mixpanel_assets_tests.laws import siblings

DAY = "2024-01-03"
SECRET = "planted-5f1c9a-secret"
BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def away_from_the_clone(monkeypatch, tmp_path):
    """Whose folder holds the database."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def accounts(emulator, monkeypatch):
    """The emulator's project as the default account, and one of another project."""
    monkeypatch.setenv("MP_API_BASE_URL", emulator.base_url)
    manager = ConfigManager()
    project_id = str(emulator.project_id)
    manager.add_account("shop", emulator.username, emulator.secret, project_id)
    manager.add_account("market", "market.a1.mp-service-account", SECRET, "999", "eu")
    return manager


def run(instance, key=EVENTS, **resources) -> str:
    """Return why a day failed; an empty text if it did not."""
    definitions = build_definitions(resources=resources, checks=False, jobs=False)
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        asset_selection=[key], instance=instance, partition_key=DAY, raise_on_error=False
    )
    failed = [event for event in result.all_events if event.is_step_failure]
    return " ".join(event.step_failure_data.user_failure_data.description for event in failed)


def stored() -> dict[str, str]:
    """Return whose rows each file in the home directory holds."""
    found = {}
    for path in (Path.home() / ".mixpanel_data").glob("*.db"):
        if "snapshot" not in path.name:
            with duckdb.connect(path, read_only=True) as connection:
                [(found[path.name],)] = connection.execute(
                    "SELECT project_id FROM mixpanel._project"
                ).fetchall()
    return found


@pytest.mark.slow
def test_the_default_account_loads_a_day_into_its_file(accounts, instance):
    """With nothing but `mp auth add`: the file is that of `mp`."""
    assert run(instance) == ""
    assert stored() == {"12345.db": "12345"}


def test_a_named_account_is_used_whatever_the_environment_says(accounts, instance, monkeypatch):
    """The account is named by the resource, or by MP_ACCOUNT."""
    accounts.set_default("market")
    monkeypatch.setenv("MP_ACCOUNT", "shop")
    assert run(instance, PROFILES) == ""
    monkeypatch.delenv("MP_ACCOUNT")
    monkeypatch.setenv("MP_USERNAME", "nobody")
    monkeypatch.setenv("MP_SECRET", "wrong-secret")
    monkeypatch.setenv("MP_PROJECT_ID", "7")
    assert run(instance, mixpanel=MixpanelResource(account="shop")) == ""
    assert stored() == {"12345.db": "12345"}


SHOP, MARKET, MINE = ("12345", "us"), ("999", "eu"), ("7", "in")


@pytest.mark.parametrize(
    ("fields", "variables", "project"),
    [
        ({}, {}, SHOP),
        ({"account": "market"}, {"MP_ACCOUNT": "shop", "MP_PROJECT_ID": "7"}, MARKET),
        ({"account": dg.EnvVar("WHICH")}, {"WHICH": "market"}, MARKET),
        ({}, {"MP_ACCOUNT": "market"}, MARKET),
        ({}, {"MP_PROJECT_ID": "7", "MP_REGION": "in"}, MINE),
        ({"project_id": "7", "region": "in"}, {"MP_ACCOUNT": "market"}, MINE),
        ({"account": "market", "project_id": "7", "region": "IN"}, {}, MINE),
        ({"username": "u", "secret": "s", "project_id": "7", "region": "in"}, {}, MINE),
        ({"secret": "s", "region": "in"}, {"MP_USERNAME": "u", "MP_PROJECT_ID": "7"}, MINE),
        ({"account": "attic"}, {}, ("", "")),
        ({"secret": "s"}, {}, ("", "")),
    ],
)
def test_the_project_that_names_the_database_is_that_of_the_account(
    accounts, monkeypatch, fields, variables, project
):
    """Fields of the resource, variables and accounts, as `mp` resolves them."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    resource = MixpanelResource(**fields)
    assert resource.known_project == project
    if project != ("", ""):
        credentials = resource.credentials
        assert (credentials.project_id, credentials.region) == project
    warehouse = build_definitions(resources={"mixpanel": resource}).resources["mixpanel_warehouse"]
    assert Path(warehouse.database).name == f"{project[0] or 'mixpanel'}.db"


INCOMPLETE = [
    ({}, {"MP_SECRET": "s"}, "MP_SECRET is set, so the account 'shop' is not used; missing: "
     "MP_USERNAME, MP_PROJECT_ID. Unset MP_SECRET, or name the account"),
    ({}, {"MP_USERNAME": "u", "MP_PROJECT_ID": "7", "MP_ACCOUNT": "market"},
     "MP_USERNAME is set, so the account 'market' is not used; missing: MP_SECRET."),
    ({"secret": "s"}, {}, "secret is set, so the account 'shop' is not used; missing: MP_USERNAME"),
    ({"secret": dg.EnvVar("MP_SECRET")}, {"MP_SECRET": "s"}, "MP_SECRET is set, so the account"),
    ({"account": "shop", "secret": "s"}, {}, "The account 'shop' has a user name and a secret of "
     "its own, but secret is set too"),
    ({"account": "attic"}, {}, "attic"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "variables", "sentence"), INCOMPLETE)
def test_an_error_names_what_is_set_and_the_account_that_it_hides(
    accounts, monkeypatch, fields, variables, sentence
):
    """The error also says what to change."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        _ = MixpanelResource(**fields).credentials
    assert sentence in caught.value.message


def test_a_run_fails_with_the_sentence_of_mp(accounts, instance, monkeypatch, capsys):
    """The location loads, with a part of the variables as with none."""
    monkeypatch.setenv("MP_SECRET", SECRET)
    said = run(instance)
    assert said.startswith("MP_SECRET is set, so the account 'shop' is not used; missing: MP_USER")
    assert SECRET not in said + capsys.readouterr().err


BROKEN = {
    "no TOML": "[accounts.shop\n",
    "not text": "\udcff",
    "too deep": "a = " + "[" * 100_000,
    "a number without end": "a = 1" + "0" * 5_000,
    "no table": "accounts = 3\n",
    "no name": "[active]\naccount = 3\n",
    "no default": '[accounts.a]\nusername = "u"\nsecret = "s"\n',
    "another kind": '[active]\naccount = "a"\n[accounts.a]\ntype = "oauth_browser"\n',
}


@pytest.mark.parametrize("text", siblings(BROKEN.values(), keep=3), ids=BROKEN)
def test_a_broken_config_file_fails_the_run_and_not_the_location(
    text, tmp_path, instance, monkeypatch, capfd, caplog
):
    """Loading neither raises nor prints, and variables that are complete need no file."""
    path = tmp_path / "config.toml"
    path.write_text(text, errors="surrogateescape")
    path.chmod(0o600)
    monkeypatch.setenv("MP_CONFIG_PATH", str(path))
    definitions = build_definitions()
    dg.Definitions.validate_loadable(definitions)
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")
    with pytest.raises(ConfigError) as caught:
        _ = ConfigManager().resolve_credentials()
    assert run(instance) == caught.value.message
    monkeypatch.setenv("MP_PROJECT_ID", "7")
    assert MixpanelResource().known_project == ("7", "us")
    monkeypatch.setenv("MP_USERNAME", "u")
    monkeypatch.setenv("MP_SECRET", "s")
    assert MixpanelResource().credentials.project_id == "7"


def test_a_user_without_a_home_directory_needs_none(tmp_path, instance, monkeypatch, emulator):
    """As in some containers: variables are enough, and an error says what else to set."""

    def nobody(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME")
    with pytest.raises(ConfigError, match="Set MP_DATABASE or HOME"):
        build_definitions()
    monkeypatch.setenv("MP_DATABASE", str(tmp_path / "w.duckdb"))
    assert "missing: MP_USERNAME" in run(instance)
    with pytest.raises(StorageError, match="Set MP_CONFIG_PATH or HOME"):
        ConfigManager().add_account("shop", "u.mp-service-account", SECRET, "7")
    assert list(tmp_path.glob("~*")) == []
    for name, value in environment_of(emulator).items():
        monkeypatch.setenv(name, value)
    assert run(instance) == ""


def test_a_config_file_that_others_may_read_fails_the_run(accounts, instance):
    """The error has the command that repairs the permissions."""
    accounts.config_path.chmod(0o644)
    assert "chmod 600" in run(instance)


def test_an_account_shows_only_its_name(accounts, instance):
    """In the location's description, in the run's configuration and in its events."""
    resource = MixpanelResource(account="market")
    definitions = build_definitions(resources={"mixpanel": resource})
    shown = (
        definitions.get_repository_def()
        .get_top_level_resources()["mixpanel"]
        .config_schema.default_value
    )
    assert shown["account"] == "market"
    assert {shown[name] for name in ("username", "secret", "project_id", "region")} == {""}

    @dg.asset
    def reader(context, mixpanel: MixpanelResource) -> None:
        context.log.info(f"{mixpanel!r} {mixpanel} {vars(mixpanel)}")
        assert mixpanel.credentials.secret.get_secret_value() == SECRET

    result = dg.materialize([reader], resources={"mixpanel": resource}, instance=instance)
    [record] = instance.get_run_records()
    events = [str(event) for event in instance.all_logs(result.run_id)]
    assert SECRET not in json.dumps(record.dagster_run.run_config) + repr(resource) + str(events)


def test_importing_and_making_a_resource_reads_no_variable(monkeypatch):
    """A wrong one fails the run."""
    monkeypatch.setenv("MP_MAX_RETRIES", "lots")
    resource = MixpanelResource(username="u", secret="s", project_id="7")
    with pytest.raises(ConfigError, match="MP_MAX_RETRIES"):
        resource.client()
    monkeypatch.setenv("MP_MAX_RETRIES", "7")
    assert load_settings().max_retries == resource._settings().max_retries == 7


@pytest.mark.slow  # the same, as a command line: ten seconds
def test_the_command_line_of_dagster_loads_from_a_saved_account(accounts, emulator, tmp_path):
    """`dagster asset materialize`, after `mp auth add` and nothing else."""
    select = ("--select", "mixpanel/events", "--partition", DAY)
    done = subprocess.run(
        [BIN / "dagster", "asset", "materialize", "-m", "mixpanel_assets.definitions", *select],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "RUN_SUCCESS" in done.stdout
    assert emulator.secret not in done.stdout
    assert stored() == {"12345.db": "12345"}
