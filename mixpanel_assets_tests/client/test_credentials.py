"""Credentials are checked before any request is sent, and never shown."""

import pytest

from mixpanel_assets.client import make_credentials
from mixpanel_assets.errors import ConfigError

SECRET = "planted-secret-7f3a"


def credentials(**changes):
    given = {"username": "sa.a1.mp-service-account", "secret": SECRET, "project_id": "12345"}
    return make_credentials(**{**given, **changes})


def test_the_secret_is_in_no_printed_form():
    """Neither repr nor str of the credentials holds the secret."""
    made = credentials()
    assert SECRET not in repr(made)
    assert SECRET not in str(made)
    assert SECRET not in str(made.model_dump())


def test_redaction_removes_the_secret_and_the_header():
    """A text that carries the secret, plain or encoded, comes back without it."""
    made = credentials()
    header = made.auth_header()
    cleaned = made.redact(f"sent {header} for {SECRET}")
    assert SECRET not in cleaned
    assert header.split()[1] not in cleaned


def test_what_is_missing_is_named():
    """The message lists the variables to set."""
    with pytest.raises(ConfigError, match="missing: MP_USERNAME, MP_SECRET"):
        credentials(username="", secret="")


def test_a_pasted_project_secret_is_recognised():
    """A project secret gets a message that says what to use instead."""
    with pytest.raises(ConfigError, match="service account") as caught:
        credentials(username="", secret="0123456789abcdef0123456789abcdef")
    assert "0123456789abcdef" not in str(caught.value)


@pytest.mark.parametrize("region", ["uk", "EU-1", "mixpanel.com"])
def test_an_unknown_region_is_refused(region):
    """Only us, eu and in exist."""
    with pytest.raises(ConfigError, match="us, eu, in") as caught:
        credentials(region=region)
    assert SECRET not in str(caught.value)


def test_a_region_in_capitals_is_understood():
    """EU means eu."""
    assert credentials(region="EU").region == "eu"


def test_zeros_in_front_are_no_part_of_a_projects_number():
    """It names files and is compared with what they hold."""
    assert credentials(project_id="0012345").project_id == "12345"
    with pytest.raises(ConfigError, match="the project's number"):
        credentials(project_id="000")


def test_a_project_name_instead_of_its_number_is_refused():
    """The project is named by its number."""
    with pytest.raises(ConfigError, match="number"):
        credentials(project_id="My Shop")


@pytest.mark.parametrize("around", [" {}", "{}\n", "\t{}\r\n", "\ufeff{}", "{}\u00a0", "\u200b{} "])
def test_blanks_around_what_was_pasted_are_removed_with_a_note(around, caplog):
    """A newline behind a secret made every request a 401 that did not say why."""
    name = "sa.a1.mp-service-account"
    made = credentials(
        username=around.format(name),
        secret=around.format(SECRET),
        project_id=around.format("12345"),
        region=around.format("eu"),
    )
    assert (made.username, made.project_id, made.region) == (name, "12345", "eu")
    assert made.secret.get_secret_value() == SECRET
    (note,) = caplog.messages
    assert "MP_USERNAME, MP_SECRET, MP_PROJECT_ID, MP_REGION" in note
    assert SECRET not in note


def test_blanks_alone_are_no_secret():
    """A secret of blanks only is refused as missing."""
    with pytest.raises(ConfigError, match="missing: MP_SECRET"):
        credentials(secret=" \n")


def test_blanks_inside_stay():
    """They may be part of it."""
    assert credentials(secret="two words").secret.get_secret_value() == "two words"
