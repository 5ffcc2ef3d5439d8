"""Who holds a database: a small note beside the lock, for messages only.

Neither the note nor the kernel's list decides anything. A note can be stale after a kill,
so it counts only while its process lives.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from mixpanel_assets.warehouse.drafts import draft_of, remove_drafts

_LOCKS = Path("/proc/locks")


@dataclass(frozen=True)
class Holder:
    """A process, what it was started as, and since when in UTC; as much as is known."""

    pid: int
    what: str = ""
    since: str = ""

    def __str__(self) -> str:
        known = f" ({self.what}, since {self.since} UTC)" if self.what else ""
        return f"process {self.pid}{known}"


def find_holder(note: Path, database: Path) -> Holder | None:
    """Return who writes or reads the database, as far as note and kernel tell."""
    return read_note(note) or _kernel_holder(database)


def leave_note(note: Path) -> None:
    """Say that this process holds the database. A failure to say so is no failure."""
    what = " ".join([Path(sys.argv[0] or sys.executable).name, *sys.argv[1:4]])[:80]
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    remove_drafts(note)
    draft = draft_of(note)
    with suppress(OSError, ValueError, TypeError):
        if note.exists() and note.stat().st_size:
            _written_in(note)  # raises for a file of others, which is left alone
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
        holder = _written_in(note)
    except (OSError, ValueError, TypeError):
        return None
    return holder if is_alive(holder.pid) else None


def _written_in(note: Path) -> Holder:
    return Holder(**json.loads(note.read_text()))


def _kernel_holder(database: Path) -> Holder | None:
    """Return a process with a lock on the file, from Linux's own list; readers leave no note."""
    try:
        inode = f":{database.stat().st_ino}"
        locks = [line.split() for line in _LOCKS.read_text().splitlines()]
    except OSError:
        return None
    pids = [int(lock[4]) for lock in locks if lock[1] == "POSIX" and lock[5].endswith(inode)]
    return next((Holder(pid) for pid in pids if pid > 0 and pid != os.getpid()), None)


def is_alive(pid: int) -> bool:
    """Tell whether a process of that id exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
