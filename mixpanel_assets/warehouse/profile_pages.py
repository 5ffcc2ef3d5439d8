"""Page files of profiles: each line as the values of a row, or the reason why it is none."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from gzip import GzipFile
from pathlib import Path

import msgspec

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.warehouse.exact import members, text_of
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

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that are not blank, without their ends.

        Raises:
            IncompleteExportError: The file is not there or cannot be read.
        """
        try:
            with GzipFile(self.path) if is_gzip(self.path) else self.path.open("rb") as file:
                yield from (line.rstrip(b"\r\n") for line in file if line.strip())
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
            profile = _PROFILE.decode(line)
            values = _PROPERTIES.decode(profile.properties) or {}
        except msgspec.DecodeError as error:
            raise self._holds_no_profile() from error
        distinct_id = text_of(_text(profile.distinct_id))
        if distinct_id is None:
            raise self._holds_no_profile()
        seen = _moment(text_of(_text(values["$last_seen"]))) if "$last_seen" in values else None
        return distinct_id, _without_last_seen(profile.properties, values, seen), seen

    def _holds_no_profile(self) -> IncompleteExportError:
        return IncompleteExportError(
            f"The profile page {self.path.name} holds a line that is no profile with a "
            "`$distinct_id`. Nothing was changed; fetch this page again.",
            reason="a line is no profile",
        )


class _Profile(msgspec.Struct):
    """The fields of a profile, each as the text that was sent."""

    distinct_id: msgspec.Raw = msgspec.field(name="$distinct_id")
    properties: msgspec.Raw = msgspec.field(name="$properties", default=msgspec.Raw(b"null"))


_PROFILE = msgspec.json.Decoder(_Profile)
_PROPERTIES = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


def _text(raw: msgspec.Raw) -> str:
    return bytes(raw).decode()


def _without_last_seen(
    sent: msgspec.Raw, values: dict[str, msgspec.Raw], seen: datetime | None
) -> str:
    raw = bytes(sent)
    ascii_only = raw.isascii()
    pairs = [_name(name, ascii_only) + bytes(value) for name, value in values.items()]
    if not _is_all(raw, pairs):
        named = members(raw.decode()) if pairs else ()
        pairs = [_name(name, ascii_only) + value.encode() for name, value in named]
    if seen is not None:
        pairs = [pair for pair in pairs if not pair.startswith(b'"$last_seen":')]
    return f"{{{b','.join(pairs).decode()}}}"


def _is_all(raw: bytes, pairs: list[bytes]) -> bool:
    """Tell by the length whether no name came twice, which a mapping would hide.

    Mixpanel writes JSON with a space after each comma and colon or with none at all; anything
    else is taken apart slowly.
    """
    compact = sum(map(len, pairs)) + max(len(pairs) - 1, 0) + 2
    return len(raw) in (compact, compact + 2 * len(pairs) - 1)


@lru_cache(maxsize=10_000)
def _name(name: str, ascii_only: bool) -> bytes:
    return json.dumps(name, ensure_ascii=ascii_only).encode() + b":"


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
