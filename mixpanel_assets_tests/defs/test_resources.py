"""A secret belongs into a variable: Dagster shows what a resource is configured with."""

import json

import dagster as dg
import pytest

from mixpanel_assets import MixpanelResource
from mixpanel_assets.defs.location import build_definitions

SECRET = "planted-5f1c9a-secret"
ACCOUNT = {"username": "sa.a1.mp-service-account", "project_id": "12345"}


@dg.asset
def names(mixpanel: MixpanelResource) -> None:
    """Reads its credentials, as any asset does."""
    assert mixpanel.credentials.secret.get_secret_value() == SECRET


def warnings_of(caplog) -> list[str]:
    return [message for message in caplog.messages if "EnvVar" in message]


def test_a_plain_secret_is_warned_of_where_dagster_shows_it(caplog):
    """Definitions of one's own, those of this package, and a run, once for each resource."""
    for use in (
        lambda resource: dg.Definitions(assets=[names], resources={"mixpanel": resource}),
        lambda resource: build_definitions(resources={"mixpanel": resource}),
        lambda resource: dg.materialize([names], resources={"mixpanel": resource}),
    ):
        caplog.clear()
        made = use(MixpanelResource(secret=SECRET, **ACCOUNT))
        if isinstance(made, dg.Definitions):
            dg.Definitions.validate_loadable(made)
        (said,) = warnings_of(caplog)
        assert 'secret=dg.EnvVar("MP_SECRET")' in said
        assert SECRET not in said


@pytest.mark.parametrize(
    ("state_dir", "warnings"),
    [
        ("postgresql://mixpanel:hidden@db/requests", 1),
        ("postgresql://db/requests?password=hidden", 1),
        ("postgresql://mixpanel@db/requests", 0),
        (dg.EnvVar("MP_STATE_DIR"), 0),
    ],
)
def test_a_plain_password_of_a_server_is_warned_of_too(state_dir, warnings, caplog):
    """Dagster shows the location with the other fields."""
    resource = MixpanelResource(state_dir=state_dir)
    dg.Definitions.validate_loadable(dg.Definitions(resources={"mixpanel": resource}))
    said = warnings_of(caplog)
    assert len(said) == warnings
    assert all('state_dir=dg.EnvVar("MP_STATE_DIR")' in one for one in said)
    assert "hidden" not in f"{said} {resource!r}"


@pytest.mark.parametrize("secret", [dg.EnvVar("MP_SECRET"), dg.EnvVar("SHOP_SECRET"), ""])
def test_a_variable_is_not_warned_of(secret, caplog, monkeypatch):
    """Nor its value, which a run puts into the resource, nor a variable that is not set."""
    resource = MixpanelResource(secret=secret, **ACCOUNT)
    definitions = dg.Definitions(assets=[names], resources={"mixpanel": resource})
    dg.Definitions.validate_loadable(definitions)
    if secret:
        monkeypatch.setenv(str(secret.env_var_name), SECRET)
        assert dg.materialize([names], resources={"mixpanel": resource}).success
    assert warnings_of(caplog) == []


def test_plain_python_is_not_warned(caplog):
    """Outside Dagster there is no page that shows it."""
    resource = MixpanelResource(secret=SECRET, **ACCOUNT)
    assert resource.credentials.username == ACCOUNT["username"]
    assert SECRET not in repr(resource)
    assert caplog.messages == []


def test_what_dagster_shows_of_a_variable_is_its_name():
    """The description of the location, as the UI gets it."""
    resource = MixpanelResource(secret=dg.EnvVar("SHOP_SECRET"), **ACCOUNT)
    repository = build_definitions(resources={"mixpanel": resource}).get_repository_def()
    shown = repository.get_top_level_resources()["mixpanel"].config_schema.default_value
    assert json.loads(json.dumps(shown))["secret"] == {"env": "SHOP_SECRET"}
