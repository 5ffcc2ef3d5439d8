"""Page files of profiles: each line as the values of a row, or the reason why it is none."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from gzip import GzipFile
from pathlib import Path

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.rules.json_text import joined, values
from mixpanel_assets.rules.lines import BOM, LongLine, lines_of
from mixpanel_assets.warehouse.exact import text_of
from mixpanel_assets.warehouse.spool import is_gzip

# No finer than a TIMESTAMP, which holds microseconds.
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)


@dataclass(frozen=True)
class ProfilePage:
    """One page of profiles on disk: a result object per line, as Mixpanel sent it.

    Attributes:
        path: NDJSON, gzip or plain.
        fetched_at: When the page was read; timezone-aware, or naive UTC.
    """

    path: Path
    fetched_at: datetime

    @property
    def fetched_at_utc(self) -> datetime:
        """When the page was read; naive, UTC."""
        return _naive(self.fetched_at)

    def lines(self) -> Iterator[bytes | LongLine]:
        """Yield the lines that are not blank, without white space around them; long ones in part.

        Raises:
            IncompleteExportError: The file is not there or cannot be read.
        """
        try:
            with GzipFile(self.path) if is_gzip(self.path) else self.path.open("rb") as file:
                for line in lines_of(file.read):
                    if isinstance(line, LongLine):
                        yield line
                    elif text := line.removeprefix(BOM).strip():
                        yield text
        except (OSError, EOFError, zlib.error) as error:
            raise IncompleteExportError(
                f"The profile page {self.path.name} cannot be read ({error}). Nothing was "
                "changed; run it again, and the page is fetched anew.",
                reason="unreadable page",
            ) from error

    def row(self, line: bytes) -> tuple[str, str, datetime | None]:
        """Return `distinct_id`, `properties` and `last_seen` of a line that DuckDB can store.

        Every property is the text that Mixpanel sent; `last_seen` is naive UTC, and None when
        `$last_seen` is no time, which then stays among the properties.

        Raises:
            IncompleteExportError: The line is no profile.
        """
        try:
            profile = dict(values(line))
            sent = profile.get("$properties", b"null")
            properties = [] if sent == b"null" else values(sent)
        except ValueError as error:
            raise self.holds_no_profile() from error
        distinct_id = text_of(profile.get("$distinct_id"))
        if distinct_id is None:
            raise self.holds_no_profile()
        seen = _moment(text_of(dict(properties).get("$last_seen")))
        if seen is not None:
            properties = [pair for pair in properties if pair[0] != "$last_seen"]
        return distinct_id, joined(properties, ascii_only=sent.isascii()).decode(), seen

    def holds_no_profile(self) -> IncompleteExportError:
        """Return the error for a line that is no profile."""
        return IncompleteExportError(
            f"The profile page {self.path.name} holds a line that is no profile with a "
            "`$distinct_id`. Nothing was changed; fetch this page again.",
            reason="a line is no profile",
        )


def _moment(text: str | None) -> datetime | None:
    """Return a time as naive UTC, which it is without an offset; None if it is no time."""
    if text is None or not _MOMENT.fullmatch(text):
        return None
    try:
        return _naive(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def _naive(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
