"""`mp quota`: what is spent and left, read from the ledger alone."""

import pytest

DAY = ("--from", "2024-01-03", "--to", "2024-01-03", "--no-profiles")


def lines(done):
    """Return each API family's cells."""
    rows = [line.strip("│ ").split("│") for line in done.stdout.splitlines() if "│" in line]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in rows}


@pytest.fixture
def shared(tmp_path):
    """Where several runs of `mp` count together."""
    return {"MP_STATE_DIR": str(tmp_path / "state"), "MP_BUDGET_EXPORT_PER_HOUR": "2"}


def test_a_fresh_project_has_everything_left(mp_here, shared):
    """Nothing is used, limits are shown, the App API has none, and stderr is empty."""
    done = mp_here("quota", **shared)
    assert done.code == 0
    assert not done.stderr
    table = lines(done)
    assert table["export"][:3] == ["0", "2", "2"]
    assert table["export"][3] == "now"
    assert table["app"][2] == "none"
    assert str(shared["MP_STATE_DIR"]) in done.stdout


def test_it_shows_what_other_processes_spent(mp_here, shared, emulator):
    """After two exports nothing is left, the next is in an hour; quota sends no request."""
    for _ in range(2):
        assert mp_here("sync", *DAY, "--refetch", "all", **shared).code == 0
    before = len(emulator.requests)
    table = lines(mp_here("quota", **shared))
    assert table["export"][:2] == ["2", "0"]
    assert table["export"][3].endswith(("in 60 min", "in 61 min"))
    assert len(emulator.requests) == before


def test_a_spent_budget_exits_with_5(mp_here, shared, tmp_path):
    """`mp fetch` does not wait for an hour, and says so in one sentence."""
    for _ in range(2):
        mp_here("sync", *DAY, "--refetch", "all", **shared)
    done = mp_here("fetch", "events", *DAY[:-1], "--stdout", **shared)
    assert done.code == 5
    assert "mp quota" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_reserve_that_leaves_nothing_is_named(mp_here, shared):
    """The variable to change is in the message."""
    done = mp_here("quota", **shared, MP_BUDGET_RESERVE="2")
    assert done.code == 1
    assert "MP_BUDGET_RESERVE" in done.stderr


def test_a_quota_needs_no_secret(mp_here, shared):
    """It is counted per project, which has to be named."""
    done = mp_here("quota", **shared, MP_USERNAME="", MP_SECRET="")
    assert done.code == 0, done.stderr
    assert "export" in done.stdout
    nameless = mp_here("quota", **shared, MP_USERNAME="", MP_SECRET="", MP_PROJECT_ID="")
    assert nameless.code == 1
    assert "MP_PROJECT_ID" in nameless.stderr
