"""Where credentials come from, and a config file that only its owner may read."""

import pytest

from mixpanel_assets.accounts import resolve_credentials
from mixpanel_assets.errors import AccountNotFoundError, ConfigError

CONFIG = """
default = "shop"

[accounts.shop]
username = "shop.a1.mp-service-account"
secret = "planted-1c7"
project_id = "111"
region = "eu"

[accounts.blog]
username = "blog.a1.mp-service-account"
secret = "planted-2d8"
project_id = "222"
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    path.chmod(0o600)
    monkeypatch.setenv("MP_CONFIG_PATH", str(path))
    return path


def test_the_default_account_holds_when_nothing_else_is_said(config):
    """Name, secret, project and region come from the file."""
    credentials = resolve_credentials()
    assert (credentials.project_id, credentials.region) == ("111", "eu")


def test_the_named_account_wins_over_the_default(config, monkeypatch):
    """MP_ACCOUNT chooses; a missing region is us."""
    monkeypatch.setenv("MP_ACCOUNT", "blog")
    credentials = resolve_credentials()
    assert (credentials.project_id, credentials.region) == ("222", "us")


def test_the_environment_wins_over_the_file(config, monkeypatch):
    """Complete credentials in the environment need no file; a lone project overrides."""
    monkeypatch.setenv("MP_PROJECT_ID", "333")
    assert resolve_credentials().username == "shop.a1.mp-service-account"
    assert resolve_credentials().project_id == "333"
    monkeypatch.setenv("MP_USERNAME", "me.a1.mp-service-account")
    with pytest.raises(ConfigError, match="missing: MP_SECRET"):
        resolve_credentials()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_may_read_is_refused_with_its_repair(mode, config):
    """The message is the command; the secret is not in it."""
    config.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {config}") as caught:
        resolve_credentials()
    assert "planted" not in str(caught.value)


def test_a_broken_file_is_named_and_not_quoted(config):
    """A line with a missing quote may be the secret."""
    config.write_text('[accounts.shop]\nsecret = "planted-1c7\n')
    with pytest.raises(ConfigError, match="no valid TOML") as caught:
        resolve_credentials()
    assert "planted" not in str(caught.value)


def test_an_account_that_is_not_there_is_named_with_those_that_are(config, monkeypatch):
    """A typing mistake in MP_ACCOUNT shows what could have been meant."""
    monkeypatch.setenv("MP_ACCOUNT", "shpo")
    with pytest.raises(AccountNotFoundError, match="blog, shop"):
        resolve_credentials()


def test_without_file_and_variables_the_variables_are_named():
    """Nothing is set: the message says what to set."""
    with pytest.raises(ConfigError, match="missing: MP_USERNAME, MP_SECRET, MP_PROJECT_ID"):
        resolve_credentials()
