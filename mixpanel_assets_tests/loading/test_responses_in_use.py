"""What a load has received and not yet stored is not cleaned while its process lives."""

import os
import threading
from contextlib import contextmanager
from datetime import timedelta

import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client.spool import Cleaned
from mixpanel_assets.loading.events import EventLoad
from mixpanel_assets.warehouse import Database
from mixpanel_assets_tests.conftest import START


class _WithoutFiles(Database):
    """Loses the files of the spool folder before it stages rows."""

    def __init__(self, path, lose):
        super().__init__(path)
        self._lose = lose

    def staging(self):
        self._lose()
        return super().staging()


@pytest.fixture
def spool(settings):
    return settings.spool_path("12345")


@contextmanager
def held(path):
    """Hold a database in another thread, as another run does."""
    is_held, is_free = threading.Event(), threading.Event()

    def hold():
        with Database(path).write():
            is_held.set()
            is_free.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait()
    yield is_free.set
    is_free.set()
    holder.join()


def clean_hours_later(workspace, spool):
    for path in (spool, *spool.rglob("*")):
        os.utime(path, (0, 0))
    return workspace.clean(timedelta(0))


def test_an_answer_that_waits_for_the_database_is_stored(
    credentials, settings, client, spool, emulator
):
    """However long it waits, and whatever is cleaned meanwhile."""
    cleaned = []
    with Workspace(credentials=credentials, settings=settings) as workspace:

        def waits(sentence):
            cleaned.append(clean_hours_later(workspace, spool))
            release()

        load = EventLoad(client, settings, from_date=START, to_date=START)
        begun = threading.Event()
        load.export.on_lines = lambda lines: (begun.set(), may_end.wait())
        may_end = threading.Event()
        failed = []

        def run():
            try:
                load.store(Database(settings.database, on_wait=waits))
            except BaseException as error:
                failed.append(error)

        requests = len(emulator.requests)
        loader = threading.Thread(target=run)
        loader.start()
        begun.wait()
        with held(settings.database) as release:
            may_end.set()
            loader.join()
        assert failed == []
        assert cleaned == [Cleaned(kept=1)]
        assert len(emulator.requests) == requests + 1
        held_rows = emulator.truth.count(START) - len(emulator.truth.unstorable(START))
        assert workspace.sql_scalar("SELECT count(*) FROM events") == held_rows
    assert list(spool.iterdir()) == []


@pytest.mark.slow
def test_pages_that_wait_for_the_database_are_stored(credentials, settings, spool, emulator):
    """No page is requested again."""
    cleaned = []

    def waits(sentence):
        cleaned.append(clean_hours_later(workspace, spool))
        release()

    with Workspace(credentials=credentials, settings=settings, on_wait=waits) as workspace:
        workspace.sync_events(START, START)
        requests = len(emulator.requests)
        with held(settings.database) as release:
            fetched = workspace.fetch_profiles("people", replace=True, progress=False)
        assert fetched.rows == len(emulator.truth.profiles())
    assert cleaned == [Cleaned(kept=1)]
    pages = [one for one in emulator.requests[requests:] if one.path.endswith("/engage")]
    assert len(pages) == 1
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("when", ["while it arrives", "before it is stored"])
def test_an_answer_that_was_deleted_by_hand_is_asked_for_again(
    client, settings, spool, emulator, when
):
    """No FileNotFoundError reaches the user."""
    gone = []

    def delete(*_):
        for path in spool.glob("*.jsonl*") if not gone else ():
            gone.append(path)
            path.unlink()

    load = EventLoad(client, settings, from_date=START, to_date=START)
    before = len(emulator.requests)
    if when == "while it arrives":
        load.export.on_lines = delete
        load.store(Database(settings.database))
    else:
        load.store(_WithoutFiles(settings.database, delete))
    assert len(emulator.requests) == before + 2
    with Database(settings.database).read() as connection:
        rows = connection.execute("SELECT count(*) FROM mixpanel.events").fetchall()[0][0]
    assert rows == emulator.truth.count(START) - len(emulator.truth.unstorable(START))


def test_a_load_leaves_no_mark(credentials, settings, spool):
    """Nor does one of several requests at once, a stream, or one that fails."""
    with Workspace(credentials=credentials, settings=settings) as workspace:
        workspace.fetch_events(
            "visits",
            from_date=START,
            to_date=START + timedelta(days=4),
            parallel=True,
            chunk_days=1,
        )
        assert list(spool.iterdir()) == []
        stream = workspace.stream_events(from_date=START, to_date=START, staged=True)
        next(stream)
        assert len(list(spool.glob("*.lock"))) == 1
        stream.close()
    assert list(spool.iterdir()) == []
