"""Files that take their place by a rename once they are complete; until then they are drafts."""

from __future__ import annotations

import re
import stat
import uuid
from contextlib import suppress
from pathlib import Path


def draft_of(target: Path) -> Path:
    """Return a path beside the target that no other file has."""
    return target.with_name(f"{target.name}.{uuid.uuid4().hex}.new")


def remove_drafts(target: Path) -> None:
    """Delete what processes that died left half-written, DuckDB's logs included.

    The caller is the only process that makes drafts of the target now.
    """
    ours = re.compile(rf"{re.escape(target.name)}\.[0-9a-f]{{32}}\.new(\.wal)?")
    with suppress(OSError):
        for file in target.parent.iterdir():
            if ours.fullmatch(file.name) and stat.S_ISREG(file.lstat().st_mode):
                file.unlink()
