"""All commands of `mp`: their help, their examples, and the names that users know."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mixpanel_assets.cli.invocation import begin
from mixpanel_assets.cli.output import Format
from mixpanel_assets_tests.cli.commands import SNAPSHOT, commands, example, shown_default, snapshot

ROOT = Path(__file__).parents[2]
FOUND = {name: chain for chain, name in commands()}
WITHOUT_FORMAT = {"mp demo", "mp emulator"}

# `<required>` and `[optional]` arguments; `*` is a required option, `…` a repeatable one, and the
# default stands in parentheses.
KNOWN = """
mp auth list
mp auth add | <name> --username/-u --project/-p --region/-r(us) --default/-d --interactive/-i --secret-stdin
mp auth remove | <name> --force
mp auth switch | <name>
mp auth show | [name]
mp auth test | [name]
mp fetch events | [name] --from* --to* --events/-e --where/-w --limit/-l --replace --append --no-progress --parallel/-p --workers --chunk-days(7) --stdout --raw --batch-size(1000)
mp fetch profiles | [name] --where/-w --cohort/-c --output-properties/-o --replace --append --no-progress --stdout --raw --batch-size(1000) --distinct-id --distinct-ids… --group-id/-g --behaviors --as-of-timestamp --include-all-users --parallel/-p --workers
mp query sql | [query] --file/-F --scalar/-s
mp query segmentation | --event/-e* --from* --to* --on/-o --unit/-u(day) --where/-w
mp query funnel | <funnel_id> --from* --to* --unit/-u --on/-o
mp query retention | --born/-b* --return/-r* --from* --to* --born-where --return-where --interval/-i --intervals/-n --unit/-u(day)
mp query jql | [file] --script/-c --param/-P…
mp query event-counts | --events/-e* --from* --to* --type/-t(general) --unit/-u(day)
mp query property-counts | --event/-e* --property/-p* --from* --to* --type/-t(general) --unit/-u(day) --limit/-l(10)
mp query activity-feed | --users/-U* --from --to
mp query saved-report | <bookmark_id>
mp query frequency | --from* --to* --event/-e --unit/-u(day) --addiction-unit(hour) --where/-w
mp query segmentation-numeric | --event/-e* --on/-o* --from* --to* --type/-t(general) --unit/-u(day) --where/-w
mp query segmentation-sum | --event/-e* --on/-o* --from* --to* --unit/-u(day) --where/-w
mp query segmentation-average | --event/-e* --on/-o* --from* --to* --unit/-u(day) --where/-w
mp inspect events
mp inspect properties | --event/-e*
mp inspect values | --property/-p* --event/-e --limit/-l(100)
mp inspect funnels
mp inspect cohorts
mp inspect bookmarks | --type/-t
mp inspect top-events | --type/-t(general) --limit/-l(10)
mp inspect info
mp inspect tables
mp inspect schema | --table/-t* --sample
mp inspect drop | --table/-t* --force
mp inspect drop-all | --type/-t --force
mp inspect lexicon-schemas | --type/-t
mp inspect lexicon-schema | --type/-t* --name/-n*
mp inspect sample | --table/-t* --rows/-n(10)
mp inspect summarize | --table/-t*
mp inspect breakdown | --table/-t*
mp inspect keys | --table/-t* --event/-e
mp inspect column | --table/-t* --column/-c* --top(10)
mp inspect distribution | --event/-e* --property/-p* --from* --to* --limit/-l(20)
mp inspect numeric | --event/-e* --property/-p* --from* --to* --percentiles
mp inspect daily | --from* --to* --events/-e
mp inspect engagement | --from* --to* --events/-e --buckets
mp inspect coverage | --event/-e* --properties/-p* --from* --to*
"""  # noqa: E501
KNOWN_COMMANDS = dict(line.partition(" | ")[::2] for line in KNOWN.strip().splitlines())

# Only service accounts are supported, no command takes a workspace, and calls without a
# documented API are left out; docs/compatibility.md explains it.
LEFT_OUT = {
    "mp auth login",
    "mp auth logout",
    "mp auth status",
    "mp auth token",
    "mp query flows",
    "--workspace-id",
}

SHORT = {
    "sql": "query sql",
    "segmentation": "query segmentation",
    "funnel": "query funnel",
    "retention": "query retention",
    "jql": "query jql",
    "events": "inspect events",
    "properties": "inspect properties",
    "values": "inspect values",
    "info": "inspect info",
    "tables": "inspect tables",
    "schema": "inspect schema",
    "drop": "inspect drop",
    "drop-day": "inspect drop-day",
}

DAY = ("--from", "2024-01-01", "--to", "2024-01-01")
EXCLUDED = [
    ("fetch events", "--from"),
    ("fetch events --from 2024-01-01", "--to"),
    ("fetch events --replace --append", "--append"),
    ("fetch events --raw", "--stdout"),
    ("fetch events --limit 5 --parallel", "--parallel"),
    ("fetch events --workers 0 --parallel", "--workers"),
    ("fetch events --chunk-days 0", "--chunk-days"),
    ("fetch events --chunk-days 101", "--chunk-days"),
    ("fetch events --batch-size 99", "--batch-size"),
    ("fetch events --batch-size 100001", "--batch-size"),
    ("fetch events --limit 0", "--limit"),
    ("fetch events --stdout --format csv", "JSON Lines"),
    ("fetch profiles --replace --append", "--append"),
    ("fetch profiles --batch-size 99", "--batch-size"),
    ("fetch profiles --raw", "--stdout"),
    ("fetch profiles --parallel --stdout", "--stdout"),
    ("fetch profiles --distinct-id a --distinct-ids b", "--distinct-ids"),
    ("fetch profiles --behaviors [] --cohort 1", "--cohort"),
    ("fetch profiles --behaviors []", "--where"),
    ("fetch profiles --behaviors {} --where a", "--behaviors"),
    ("fetch profiles --include-all-users", "--cohort"),
    ("events --format nonsense", "--format"),
    ("events --format csv --jq .", "--jq"),
    ("events --jq .[", "--jq"),
    ("sync --to 2024-01-01", "--from"),
    ("retention -b a -r b --unit week -i 2", "--interval"),
    ("jql --script a report.js", "once"),
    ("jql --script a -P nonsense", "--param"),
    ("query saved-report 1 --type funnels", "--from"),
]


def options(command: Any) -> dict[str, Any]:
    return {name: one for one in command.params for name in [*one.opts, *one.secondary_opts]}


def test_nothing_changes_unseen():
    """Help and parameters are those of the snapshot; see `commands` for how to renew it."""
    assert words_of(snapshot()) == words_of(SNAPSHOT.read_text())


def words_of(text: str) -> list[str]:
    """Return the words without the frames: how wide a column is depends on the version of Rich."""
    return re.sub(r"[│╭╮╰╯─]", " ", text).split()


@pytest.mark.parametrize("name", KNOWN_COMMANDS)
def test_known_commands_take_what_users_type(name):
    """Arguments, both spellings of each option, what is required, and the defaults."""
    command = FOUND[name][-1]
    offered = options(command)
    arguments = [
        f"<{one.name}>" if one.required else f"[{one.name}]"
        for one in command.params
        # A name may stand in place of its option.
        if one.param_type_name == "argument" and not one.name.startswith("named_")
    ]
    wanted = KNOWN_COMMANDS[name].split()
    assert arguments == [word for word in wanted if not word.startswith("-")]
    for word in wanted[len(arguments) :]:
        spelled, required, many, default = re.fullmatch(
            r"([\w/-]+)(\*?)(…?)(\(.*\))?", word
        ).groups()
        found = {offered.get(spelling) for spelling in spelled.split("/")}
        assert len(found) == 1, word
        option = found.pop()
        assert option, word
        assert option.required == bool(required), word
        assert not many or option.multiple, word
        assert not default or shown_default(option) == default, word


def test_what_is_left_out_is_left_out():
    """The documentation lists it, so that users know that it is on purpose."""
    told = (ROOT / "docs" / "compatibility.md").read_text()
    for name in LEFT_OUT:
        assert f"`{name}`" in told
        command, _, option = name.partition(" --")
        if option or name.startswith("--"):
            chain = FOUND.get(command) or FOUND["mp events"]
            assert not any(f"--{option.lstrip('-')}" in options(one) for one in chain)
        else:
            assert name not in FOUND


def help_at(width: int, name: str) -> str:
    words = name.split()[1:]
    return (
        CliRunner().invoke(FOUND[name][0], [*words, "--help"], env={"COLUMNS": str(width)}).stdout
    )


def test_help_of_options_can_be_read_in_80_columns():
    """A flag shows no value, and no list of choices is broken."""
    for name in FOUND:
        shown = help_at(80, name)
        assert "<bool>" not in shown, name
        assert not re.search(r"<[^<>\n]*\|[^<>\n]*\n", shown), name


@pytest.mark.parametrize("width", [80, 120])
def test_paragraphs_of_help_fill_their_lines(width):
    """They are not broken where the source is."""
    paragraph = re.search(r"Without days.*?not loaded\.", help_at(width, "mp sync"), re.DOTALL)[0]
    assert all(len(line.strip()) > width - 20 for line in paragraph.splitlines()[:-1])


@pytest.mark.parametrize("name", SHORT)
def test_a_short_spelling_is_the_same_function(name):
    """Not a copy that could differ."""
    short, long = FOUND[f"mp {name}"][-1], FOUND[f"mp {SHORT[name]}"][-1]
    assert short.callback.__wrapped__ is long.callback.__wrapped__
    assert options(short).keys() == options(long).keys()


@pytest.mark.parametrize("name", FOUND)
def test_a_command_explains_itself_with_an_example_that_parses(name):
    """Help describes the output, and its example can be parsed in every form."""
    command = FOUND[name][-1]
    assert command.help
    words = shlex.split(example(command).partition(" | ")[0])
    if name != "mp inspect bookmarks":  # the known name of `mp inspect reports`
        assert words[: len(name.split())] == name.split() or name.removeprefix("mp ") in SHORT
    parsed(words)
    assert all(one.help for one in command.params if one.name != "help")
    if name in WITHOUT_FORMAT:
        assert "--format" not in options(command)
        return
    assert {"-f", "--jq"} <= options(command).keys()
    for form in Format:
        parsed([*words, "--format", form])


def parsed(words: list[str]) -> None:
    """Parse a command line, without running anything."""
    begin()
    context, rest = None, words
    command = FOUND["mp events"][0]
    while True:
        context = command.make_context(rest[0], list(rest[1:]), parent=context)
        if not hasattr(command, "commands"):
            return
        rest = [*context._protected_args, *context.args]
        command = command.commands[rest[0]]


@pytest.mark.parametrize(("line", "said"), EXCLUDED)
def test_what_excludes_each_other_is_refused_before_anything_is_asked(
    line, said, mp_here, emulator
):
    """Exit code 3 and the option's name; one JSON object with --format json."""
    needs_days = line.startswith(("fetch events -", "retention")) and "--from" not in line
    words = [*shlex.split(line), *(DAY if needs_days else ())]
    before = len(emulator.requests)
    done = mp_here(*words)
    assert done.code == 3
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert done.stdout == ""
    assert len(emulator.requests) == before
