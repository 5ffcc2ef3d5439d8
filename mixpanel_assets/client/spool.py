"""Answers on disk: the bytes of an export exactly as they arrived, and what is known of them."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Self

from mixpanel_assets.errors import StorageError
from mixpanel_assets.rules.locks import PRIVATE_FILE, PRIVATE_FOLDER, marked

STEM_DIGITS = 24  # of the 32 that a file's name begins with: the same for all files of an export


@dataclass(frozen=True)
class Spool:
    """One export answer that was found whole.

    Attributes:
        path: The received bytes, `.jsonl.gz` when Mixpanel compressed them, else `.jsonl`.
        from_date: First day asked for, included.
        to_date: Last day asked for, included.
        lines: Events in the file, repeats included.
        received_bytes: Size of the file.
        json_bytes: Size of its content, uncompressed.
        requests: Requests it took, failed ones included.
        seconds: From the first request to the verdict.
        received_at: When its last byte came, UTC.
    """

    path: Path
    from_date: date
    to_date: date
    lines: int
    received_bytes: int
    json_bytes: int
    requests: int
    seconds: float
    received_at: datetime

    def discard(self) -> None:
        """Delete the file; its content is stored elsewhere, or unwanted."""
        self.path.unlink(missing_ok=True)

    def named(self, key: str) -> Self:
        """Return it under a name that whoever knows the key can find.

        Args:
            key: 32 hexadecimal digits.
        """
        path = self.path.replace(self.path.with_name(f"{key}{self.path.name[len(key) :]}"))
        return replace(self, path=path)

    def anonymous(self) -> Self:
        """Return it under a name that nobody can find: it is not to be used."""
        return self.named(uuid.uuid4().hex)


@contextmanager
def new_file(
    directory: Path, name: str, stem: str = ""
) -> Iterator[tuple[Path, Callable[[bytes], object]]]:
    """Yield a new file's path and its `write`; the file goes away if the block fails.

    It is readable by this user alone, whatever the umask.

    Args:
        directory: Made when it is missing.
        name: What its name ends with, after 32 hexadecimal digits that no other file has.
        stem: The first of those digits.

    Raises:
        StorageError: The directory cannot be written or the disk is full.
    """
    path = directory / f"{stem}{uuid.uuid4().hex[len(stem) :]}-{name}"
    try:
        make_private_folder(directory)
        with open(path, "xb", opener=_private) as file, _removed_on_error(path):
            yield path, file.write
    except OSError as error:
        raise StorageError(_what_to_do(error, directory)) from error


def make_private_folder(directory: Path) -> None:
    """Make a folder for this user alone; one that is there stays as it is.

    Raises:
        OSError: It cannot be made.
    """
    directory.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE_FILE)


@contextmanager
def in_use(directory: Path, stem: str = "") -> Iterator[None]:
    """Keep every process from cleaning some files; ends with the block or the process.

    Args:
        directory: Made when it is missing.
        stem: What the names of the files begin with.

    Raises:
        StorageError: The directory cannot be written or the disk is full.
    """
    with ExitStack() as mark:
        try:
            mark.enter_context(marked(directory, stem))
        except OSError as error:
            raise StorageError(_what_to_do(error, directory)) from error
        yield


@contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _what_to_do(error: OSError, directory: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"The disk is full: {directory} took no more bytes. Free space, or set MP_SPOOL_DIR."
    reason = error.strerror or "unknown reason"
    return f"{directory} cannot be written ({reason}). Set MP_SPOOL_DIR to a folder that can be."
