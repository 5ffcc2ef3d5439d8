"""Where credentials come from, and a config file that only its owner may read."""

import os
import re
import stat
import subprocess
import sys
import tomllib
import traceback
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.auth import AccountInfo, ConfigManager, resolve_credentials
from mixpanel_assets.errors import (
    AccountExistsError,
    AccountNotFoundError,
    ConfigError,
    StorageError,
)
from mixpanel_assets_tests.laws import examples

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

ENVIRONMENT = {
    "MP_USERNAME": "me.a1.mp-service-account",
    "MP_SECRET": "planted-0b6",
    "MP_PROJECT_ID": "333",
    "MP_REGION": "eu",
}


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
    with pytest.raises(
        ConfigError, match=r"MP_USERNAME is set, so the account 'shop' .* missing: MP_SECRET"
    ):
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
    with pytest.raises(ConfigError, match="not valid TOML; see line 2") as caught:
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


def test_an_account_named_in_the_call_beats_the_environment(config, monkeypatch):
    """Name, secret, project and region are all the account's."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    credentials = resolve_credentials("blog")
    assert (credentials.username, credentials.project_id) == ("blog.a1.mp-service-account", "222")
    assert credentials.region == "us"
    assert set(ConfigManager().explain("blog").values()) == {"account 'blog'", "default"}


def test_arguments_beat_the_named_account(config):
    """A project and a region given in the call are taken."""
    credentials = resolve_credentials("shop", project_id="9", region="in")
    assert (credentials.project_id, credentials.region) == ("9", "in")


def test_explain_says_which_source_won_and_never_the_secret(config, monkeypatch):
    """Each field has one source; a field that is not set is reported as missing."""
    monkeypatch.setenv("MP_REGION", "in")
    explained = ConfigManager().explain(project_id="9")
    assert explained == {
        "username": "account 'shop'",
        "secret": "account 'shop'",
        "project_id": "argument",
        "region": "MP_REGION",
    }
    assert "planted" not in repr(ConfigManager().resolution())
    monkeypatch.setenv("MP_USERNAME", "me.a1.mp-service-account")
    assert ConfigManager().explain()["secret"] == "missing"


def test_complete_variables_need_no_file(config, monkeypatch):
    """A broken config file causes no error if the variables are complete."""
    config.write_text("[")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert resolve_credentials().project_id == "333"


def test_without_a_default_the_choice_is_asked_for(config):
    """Nothing is loaded from whichever account happens to be first."""
    manager = ConfigManager()
    manager.remove_account("shop")
    with pytest.raises(ConfigError, match="there are: blog"):
        manager.resolve_credentials()
    manager.set_default("blog")
    assert manager.resolve_credentials().project_id == "222"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('username = "a"\nproject_id = "1"', "missing: secret of account 'x'"),
        (
            'username = "a"\nproject_id = "1"\nsecret = "s"\nregion = "mars"',
            "region of account 'x'",
        ),
        ('username = "a"\nproject_id = "shop"\nsecret = "s"', "project_id of account 'x'"),
    ],
)
def test_what_is_wrong_in_an_account_is_named_as_such(entry, said, config):
    """The error names the field and the account instead of an environment variable."""
    config.write_text(f"[accounts.x]\n{entry}\n")
    with pytest.raises(ConfigError, match=said):
        resolve_credentials("x")


def test_the_first_account_makes_a_private_file_and_is_the_default(tmp_path):
    """0600 in a folder of 0700, whatever the umask is."""
    manager = ConfigManager(tmp_path / "new" / "config.toml")
    before = os.umask(0)
    try:
        manager.add_account("shop", "shop.a1.mp-service-account", "planted-1c7", "111", "EU")
    finally:
        os.umask(before)
    assert stat.S_IMODE(manager.config_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(manager.config_path.parent.stat().st_mode) == 0o700
    assert manager.list_accounts() == [
        AccountInfo("shop", "shop.a1.mp-service-account", "111", "eu", is_default=True)
    ]
    assert manager.resolve_credentials().secret.get_secret_value() == "planted-1c7"


def test_comments_and_unknown_keys_survive(config):
    """Adding, switching and removing leave every other line as it was."""
    text = (
        "# ours\ndefault = 'shop' # the big one\ncolour = 3\n"
        + CONFIG.replace('default = "shop"', "").replace(
            "[accounts.blog]", "# small\n[accounts.blog]"
        )
        + "note = 'keep' # why\n\n[other]\ndays = [1, 2] # two\n"
    )
    config.write_text(text)
    manager = ConfigManager()
    manager.add_account("a.b \"c'", "abc.a1.mp-service-account", "planted-3e9", "7", "us")
    manager.set_default("blog")
    manager.remove_account("a.b \"c'")
    manager.remove_account("shop")
    left = config.read_text()
    assert "shop" not in left
    assert tomllib.loads(left)["default"] == "blog"
    for line in text[text.index("# small") :].splitlines():
        assert line in left
    assert left.startswith('# ours\ndefault = "blog" # the big one\ncolour = 3\n')


A, B = (f'username = "u"\nsecret = "s1"\nproject_id = "{number}"\n' for number in (1, 2))


@pytest.mark.parametrize(
    "text",
    [
        'accounts = { a = {username = "u"}, b = {username = "u"} }\n',
        '[accounts]\n# one\na.username = "u"\nb = { username = "u" }\n# end\n',
        f"[accounts.a]\n{A}[other]\nx = 1 # kept\n[accounts.b]\n{B}[[list]]\ny = 2\n",
        f"[accounts.a]\n{A}# of b\n[accounts.b]\n{A.rstrip()}",
        f"# top\n[accounts.a]\n{A}# of b\n[accounts.b]\n{B}".replace("\n", "\r\n"),
        f'[accounts.a]\nsecret = """\n[accounts.b]\n"""\n[accounts.b]\n{B}',
    ],
)
def test_a_file_is_changed_however_it_is_written(text, config):
    """Inline tables, dotted keys, tables in pieces, any line ends: the rest stays."""
    config.write_bytes(text.encode())
    before = tomllib.loads(text.replace("\r\n", "\n"))
    manager = ConfigManager()
    manager.add_account("c", "u.mp-service-account", "planted-7d3", "3", "us")
    manager.set_default("b")
    manager.remove_account("a")
    manager.remove_account("c")
    del before["accounts"]["a"]
    after = config.read_bytes().decode()
    assert tomllib.loads(after.replace("\r\n", "\n")) == {**before, "active": {"account": "b"}}
    assert all(comment in after for comment in re.findall("# [a-z ]+", text))


def test_what_cannot_be_changed_without_loss_is_left(config):
    """The change raises an error, and the file is unchanged."""
    text = 'accounts.a.username = "u"\naccounts.b.username = "u"\n'
    config.write_text(text)
    with pytest.raises(StorageError, match="editor"):
        ConfigManager().add_account("c", "u.mp-service-account", "planted-7d3", "3", "us")
    assert config.read_text() == text


def test_a_symbolic_link_stays_one(config, tmp_path, monkeypatch):
    """A change through a link is written to the file that the link names."""
    link = tmp_path / "link.toml"
    link.symlink_to(config)
    ConfigManager(link).set_default("blog")
    assert link.is_symlink()
    assert tomllib.loads(config.read_text())["default"] == "blog"


@pytest.mark.slow
def test_processes_that_write_at_once_lose_nothing(tmp_path):
    """Every account of every process is there, each written once."""
    code = (
        "import sys; from mixpanel_assets.auth import ConfigManager\n"
        "for n in range(6): ConfigManager(sys.argv[1]).add_account("
        "f'{sys.argv[2]}-{n}', 'a.b.mp-service-account', 'planted-4f0', '1', 'us')"
    )
    path = str(tmp_path / "config.toml")
    running = [
        subprocess.Popen([sys.executable, "-c", code, path, name]) for name in ("a", "b", "c")
    ]
    assert [process.wait(300) for process in running] == [0, 0, 0]
    names = {account.name for account in ConfigManager(path).list_accounts()}
    assert names == {f"{process}-{n}" for process in "abc" for n in range(6)}
    assert sum(account.is_default for account in ConfigManager(path).list_accounts()) == 1


def test_a_failed_write_leaves_the_file(config):
    """In a folder that cannot be written the change is refused, and nothing is left behind."""
    before = config.read_text()
    elsewhere = ConfigManager("/proc/nowhere/config.toml")
    with pytest.raises(StorageError, match="MP_CONFIG_PATH"):
        elsewhere.add_account("x", "a.b.mp-service-account", "planted-5a1", "1", "us")
    with pytest.raises(AccountExistsError, match="'shop'"):
        ConfigManager().add_account("shop", "a.b.mp-service-account", "planted-5a1", "1", "us")
    assert config.read_text() == before
    assert not [path for path in config.parent.iterdir() if path.name.startswith(".config")]


@pytest.mark.parametrize(
    "content", [b"default = 'x'\n\xff\n", b'\nsecret = "planted-1c7\n', b"a = 1\n[["]
)
def test_a_broken_file_tells_its_line(content, config):
    """File and line are named, for bytes that are no text as well; the cause quotes nothing."""
    config.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config.toml.* line 2") as caught:
        ConfigManager().list_accounts()
    shown = "".join(traceback.format_exception(caught.value))
    assert "planted-1c7" not in shown.replace(repr(content), "")


@pytest.mark.parametrize("content", ["accounts = 3", "accounts.shop = 3", "default = 3"])
def test_a_file_of_another_shape_is_refused(content, config):
    """TOML that is no list of accounts is named, not a traceback."""
    config.write_text(content)
    with pytest.raises(ConfigError, match="must be"):
        ConfigManager().list_accounts()


GOOD = {
    "name": "x",
    "username": "a.b.mp-service-account",
    "secret": "planted-6b2",
    "project_id": "1",
    "region": "us",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "printable"),
        ({"name": "a\nb"}, "printable"),
        ({"name": " a"}, "printable"),
        ({"region": "mars"}, "us, eu, in"),
        ({"project_id": "planted-6b2"}, "number"),
        ({"secret": ""}, "secret of account 'x'"),
        ({"username": "0123456789abcdef" * 2}, "retires"),
    ],
)
def test_a_wrong_account_is_not_added(changes, said, tmp_path):
    """What is wrong is named, its value is not, and no file is made."""
    manager = ConfigManager(tmp_path / "config.toml")
    with pytest.raises(ConfigError, match=said) as caught:
        manager.add_account(**{**GOOD, **changes})
    assert "planted-6b2" not in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)
    assert not manager.config_path.exists()


def test_a_project_secret_in_the_file_is_not_listed(config):
    """It stands where other accounts have a name."""
    config.write_text(f"[accounts.old]\nusername = '{'0123456789abcdef' * 2}'\n")
    assert ConfigManager().list_accounts()[0].username == "[secret]"


NAMES = st.sampled_from(["shop", "a.b", 'q"uote', "über blog", "[x]", "#", "default", "accounts"])
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove", "switch"]), NAMES), max_size=12)


@given(STEPS)
@examples(20)
def test_any_sequence_of_changes_does_what_a_dictionary_would(steps):
    """Accounts, their order and the default are the model's; refusals change nothing."""
    model: dict[str, str] = {}
    default = None
    with TemporaryDirectory() as folder:
        manager = ConfigManager(Path(folder) / "config.toml")
        for number, (step, name) in enumerate(steps, start=1):
            refused = (name in model) if step == "add" else (name not in model)
            with (
                pytest.raises((AccountExistsError, AccountNotFoundError))
                if refused
                else nullcontext()
            ):
                if step == "add":
                    manager.add_account(name, "a.b.mp-service-account", "s", str(number), "us")
                elif step == "remove":
                    manager.remove_account(name)
                else:
                    manager.set_default(name)
            if refused:
                continue
            if step == "add":
                default = default if model else name
                model[name] = str(number)
            elif step == "remove":
                del model[name]
                default = None if default == name else default
            else:
                default = name
            listed = manager.list_accounts()
            assert {one.name: one.project_id for one in listed} == model
            assert [one.name for one in listed if one.is_default] == [default] * bool(default)


HEADLESS = """
[active]
account = "team"
workspace = 5

[accounts.team]
type = "service_account"
region = "eu"
default_project = "777"
username = "team.a1.mp-service-account"
secret = "planted-9f2"

[accounts.me]
type = "oauth_browser"
region = "us"

[targets.t]
account = "team"
project = "778"
"""


def test_a_file_of_mixpanel_headless_is_read(config):
    """Its spelling of projects and of the default; accounts that need a browser are named."""
    config.write_text(HEADLESS)
    manager = ConfigManager()
    assert [(a.name, a.type, a.is_default) for a in manager.list_accounts()] == [
        ("team", "service_account", True),
        ("me", "oauth_browser", False),
    ]
    assert (resolve_credentials().project_id, resolve_credentials().region) == ("777", "eu")
    with pytest.raises(ConfigError, match="'me' is of type oauth_browser"):
        resolve_credentials("me")


def test_what_is_added_is_read_by_mixpanel_headless_too(config):
    """The keys that both packages know, and one default for both; its own keys are kept."""
    config.write_text(HEADLESS)
    manager = ConfigManager()
    manager.add_account("shop", "shop.a1.mp-service-account", "planted-1c7", "111", default=True)
    written = tomllib.loads(config.read_text())
    assert written["accounts"]["shop"] == {
        "type": "service_account",
        "region": "us",
        "default_project": "111",
        "username": "shop.a1.mp-service-account",
        "secret": "planted-1c7",
    }
    assert written["active"] == {"account": "shop", "workspace": 5}
    assert "default" not in written
    assert written["targets"] == tomllib.loads(HEADLESS)["targets"]
    assert manager.foreign_to_headless() == {}
    manager.remove_account("shop")
    assert tomllib.loads(config.read_text())["active"] == {"workspace": 5}


def test_old_accounts_are_rewritten_when_that_is_asked_for(config):
    """A copy of the old file is kept; a second rewrite has nothing to do."""
    config.write_text("# ours\n" + CONFIG)
    config.chmod(0o600)
    before = config.read_bytes()
    manager = ConfigManager()
    accounts, names = manager.list_accounts(), [a.name for a in manager.list_accounts()]
    assert set(manager.foreign_to_headless()) == set(names)
    migrated, backup = manager.migrate()
    assert migrated == names
    assert backup.read_bytes() == before
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert manager.foreign_to_headless() == {}
    assert manager.list_accounts() == accounts
    assert "default" not in tomllib.loads(config.read_text())
    assert config.read_text().startswith("# ours\n")
    assert manager.migrate() == ([], None)


def test_an_old_file_is_not_rewritten_by_other_changes(config):
    """A new default account is written in both spellings; the other accounts are kept."""
    manager = ConfigManager()
    old = tomllib.loads(config.read_text())["accounts"]
    manager.add_account("new", "new.a1.mp-service-account", "planted-5d5", "9", default=True)
    written = tomllib.loads(config.read_text())
    assert {name: written["accounts"][name] for name in old} == old
    assert (written["default"], written["active"]) == ("new", {"account": "new"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[accounts.a]\n[accounts.a]\n", "line 2. A table or key of that name"),
        ("default = 'a'\ndefault = 'b'\n", "line 2. A table or key of that name"),
        ("active = 'a'\n", "`active` must be a table"),
        ("[active]\naccount = 5\n", "`account` must be an account's name"),
    ],
)
def test_a_file_that_says_something_twice_or_wrongly_names_it(text, said, config):
    """The error names the line, where the parser gives one."""
    config.write_text(text)
    with pytest.raises(ConfigError, match=said):
        ConfigManager().list_accounts()


def test_a_byte_order_mark_is_no_part_of_the_file(config):
    """Some editors write one."""
    config.write_bytes(b"\xef\xbb\xbf" + CONFIG.encode())
    assert resolve_credentials("shop").project_id
