"""Records on their way to stdout."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mixpanel_assets.cli.invocation import current, told_what_is_kept
from mixpanel_assets.client import ProfileQuery, RecordStream
from mixpanel_assets.loading.files import as_json

_SHOWN_EVERY = 1000


def write_events(
    from_date: date,
    to_date: date,
    *,
    events: Sequence[str] | None,
    where: str | None,
    limit: int | None,
    raw: bool,
    staged: bool,
) -> None:
    """Write the events of some days to stdout, one JSON object a line."""
    question: dict[str, Any] = {
        "from_date": from_date,
        "to_date": to_date,
        "events": events,
        "where": where,
        "limit": limit,
        "staged": staged,
    }
    with current().workspace() as workspace:
        if raw:
            written = _write_lines(workspace.stream_event_lines(**question), "events")
        else:
            written = _write_records(workspace.stream_events(**question), "events")
        if events and not written:
            workspace.tell_of_unknown(events)


def write_profiles(filters: Mapping[str, Any], *, raw: bool) -> None:
    """Write profiles to stdout, one JSON object a line."""
    with current().workspace() as workspace:
        query = ProfileQuery(**filters, workspace_id=workspace.workspace_id)
        if raw:
            _write_lines(workspace.api.stream_profile_lines(query), "profiles")
        else:
            _write_records(workspace.api.stream_profiles(query), "profiles")


def _write_records(stream: RecordStream[dict[str, Any]], what: str) -> int:
    with _to_stdout(stream, what) as write:
        for record in stream:
            write.line(as_json(record))
    return stream.delivered


def _write_lines(stream: RecordStream[bytes], what: str) -> int:
    with _to_stdout(stream, what) as write:
        for line in stream:
            write.line(line)
    return stream.delivered


class _Writer:
    """Writes lines to stdout and, on a terminal, the number of them to stderr."""

    def __init__(self, bar: Progress, what: str) -> None:
        self._out = sys.stdout.buffer
        self._bar = bar
        self._task = bar.add_task(what, total=None)
        self._lines = 0

    def line(self, line: bytes) -> None:
        self._out.write(line + b"\n")
        self._lines += 1
        if self._lines % _SHOWN_EVERY == 0:
            self._bar.update(self._task, completed=self._lines)

    def give_up(self) -> None:
        """Drop the last lines if the reader has stopped reading: it must not delay the end."""
        if not select.select([], [self._out], [], 0)[1]:
            _forget_stdout()

    def flush(self) -> None:
        self._bar.update(self._task, completed=self._lines)
        self._out.flush()


@contextmanager
def _to_stdout(stream: RecordStream[Any], what: str) -> Iterator[_Writer]:
    """Yield a writer; whoever reads may stop reading, which ends the stream quietly."""
    with told_what_is_kept(lambda: f"What was written is real, but not all {what} of the request."):
        try:
            with stream, spinner() as bar:
                writer = _Writer(bar, what)
                try:
                    yield writer
                except KeyboardInterrupt:
                    writer.give_up()
                    raise
                finally:
                    writer.flush()
        except BrokenPipeError:
            _forget_stdout()


def _forget_stdout() -> None:
    """Let Python, which flushes stdout once more when it ends, do so without a complaint."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def spinner() -> Progress:
    """Return a count and the time that passed, on a terminal that shows nothing else."""
    errors = current().console()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description} {task.completed:,.0f}"),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        # Between lines on the same terminal it would only disturb.
        disable=errors.quiet or not errors.is_terminal or sys.stdout.isatty(),
    )
