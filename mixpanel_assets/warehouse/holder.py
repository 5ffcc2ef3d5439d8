"""Who holds a database: a small note beside the lock, for messages only.

The note decides nothing. It can be stale after a kill, so it counts only while its
process lives.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """A process and what it was started as; `since` is UTC in ISO format."""

    pid: int
    what: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.what}, since {self.since} UTC)"


def leave_note(note: Path) -> None:
    """Say that this process holds the database. A failure to say so is no failure."""
    what = " ".join([Path(sys.argv[0] or sys.executable).name, *sys.argv[1:4]])[:80]
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    draft = note.with_name(f"{note.name}.{os.getpid()}")
    with suppress(OSError):
        draft.write_text(json.dumps(asdict(Holder(os.getpid(), what, since))))
        draft.replace(note)


def remove_note(note: Path) -> None:
    """Take the note back, unless another process has written its own since."""
    with suppress(OSError):
        if (holder := read_note(note)) and holder.pid == os.getpid():
            note.unlink(missing_ok=True)


def read_note(note: Path) -> Holder | None:
    """Return the holder named by the note, if that process still lives."""
    try:
        holder = Holder(**json.loads(note.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return holder if is_alive(holder.pid) else None


def is_alive(pid: int) -> bool:
    """Tell whether a process of that id exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
