"""Profiles -> one file that holds a whole snapshot."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixpanel_assets.client import MixpanelAPIClient, ProfileQuery, RecordStream
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.record_files import PROFILE_COLUMNS, FileFormat, whole_record_file


@dataclass(frozen=True)
class SnapshotFile:
    """A file of profiles.

    Attributes:
        path: The file.
        rows: Profiles in it.
        bytes: Its size.
        seconds: From the first request to the whole file.
    """

    path: Path
    rows: int
    bytes: int
    seconds: float


def write_snapshot(
    client: MixpanelAPIClient,
    path: Path,
    query: ProfileQuery | None = None,
    *,
    raw: bool = False,
    format: FileFormat = "jsonl",
    overwrite: bool = False,
) -> SnapshotFile:
    """Write the profiles as they are now; the file is there when all of them have come.

    Args:
        client: Who is asked.
        path: The file.
        query: Which profiles; None: all.
        raw: As Mixpanel sends them, byte for byte; otherwise normalized.
        format: `jsonl`, or `parquet` for normalized profiles.
        overwrite: Replace a file of that name once the new one is whole.

    Raises:
        ConfigError: There is such a file, raw profiles were to become Parquet, or the filters
            contradict each other; nothing was asked.
        IncompleteExportError: Not all profiles came.
        StorageError: The disk refused.
    """
    if path.exists() and not overwrite:
        raise ConfigError(f"There is a file {path} already. Choose another path, or overwrite it.")
    begin = time.monotonic()
    with whole_record_file(path, PROFILE_COLUMNS, format, raw=raw) as file:
        stream: RecordStream[Any] = (
            client.stream_profile_lines(query) if raw else client.stream_profiles(query)
        )
        with stream:
            for profile in stream:
                file.add(profile)
    return SnapshotFile(path, file.rows, path.stat().st_size, time.monotonic() - begin)
