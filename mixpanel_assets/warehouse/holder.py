"""Who holds a database: a small note beside the lock, for messages only.

Neither the note nor the kernel's list decides anything. A note can be stale after a kill,
so it counts only while its process lives.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from mixpanel_assets.rules.locks import Holder, is_alive, kernel_holder, shown_command
from mixpanel_assets.warehouse.drafts import draft_of, remove_drafts


def find_holder(note: Path, *files: Path) -> Holder | None:
    """Return which process writes or reads the database, as far as note and kernel tell.

    Readers leave no note, but the kernel lists their locks on the files.
    """
    return read_note(note) or kernel_holder(*files)


def leave_note(note: Path) -> None:
    """Say that this process holds the database. A failure to say so is no failure."""
    what = shown_command([sys.argv[0] or sys.executable, *sys.argv[1:]])
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    remove_drafts(note)
    draft = draft_of(note)
    with suppress(OSError, ValueError, TypeError):
        if note.exists() and note.stat().st_size:
            _written_in(note)  # raises for a file of others, which is left alone
        draft.touch(0o640)
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
