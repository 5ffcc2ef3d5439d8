"""One event line kept to the letter, for the few that DuckDB does not read as they were sent.

DuckDB rewrites numbers as doubles, which loses digits beyond the sixteenth, and takes many
times the memory of a long line. Here the text of each property is cut out of the line and joined
again unread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mixpanel_assets.rules.json_text import joined, parsed, values
from mixpanel_assets.warehouse.spool import READ_KEYS, REMOVED_KEYS

ROW_TYPE = (
    "STRUCT(event_name VARCHAR, distinct_id VARCHAR, insert_id VARCHAR, properties BLOB, "
    "processed_ms BIGINT, time_raw BIGINT)"
)


@dataclass(frozen=True)
class SentEvent:
    """The parts of an event line, each as the text that was sent.

    Attributes:
        name: The name of the event, quoted.
        properties: Names and texts, in order, repeated names too.
        ascii_only: Whether the line has no byte beyond ASCII.
    """

    name: bytes
    properties: list[tuple[str, bytes]]
    ascii_only: bool

    @classmethod
    def of(cls, line: bytes) -> SentEvent:
        """Take a line apart.

        Raises:
            ValueError: It is not an event.
        """
        fields = dict(values(line))
        name, properties = fields.get("event", b""), fields.get("properties", b"")
        if not name.startswith(b'"') or not properties.startswith(b"{"):
            raise ValueError("a text `event` or an object `properties` is missing")
        return cls(name, values(properties), line.isascii())

    @property
    def time_ms(self) -> int | None:
        """`time`, if it is a whole number."""
        return self._number("time")

    def row(self, time_ms: int) -> dict[str, Any]:
        """Return the row of the event, with the keys of `ROW_TYPE`.

        An id that was not sent as text, such as a number, is its JSON text as sent.
        """
        last = dict(self.properties)
        return {
            "event_name": text_of(self.name),
            "distinct_id": text_of(last.get("distinct_id")),
            "insert_id": text_of(last.get("$insert_id")) or None,
            "properties": joined(self._others(), ascii_only=self.ascii_only),
            "processed_ms": self._number("mp_processing_time_ms"),
            "time_raw": time_ms,
        }

    def _number(self, name: str) -> int | None:
        return whole_number(parsed(dict(self.properties).get(name, b"null").decode()))

    def _others(self) -> list[tuple[str, bytes]]:
        """Return what has no column; of what SQL reads later, the last value alone."""
        last = {name: place for place, (name, _) in enumerate(self.properties)}
        return [
            (name, text)
            for place, (name, text) in enumerate(self.properties)
            if name not in REMOVED_KEYS and (name not in READ_KEYS or place == last[name])
        ]


def whole_number(value: Any) -> int | None:
    """Return a JSON number that is whole and not negative, of 15 digits at most."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 10**15 else None


def text_of(value: bytes | None) -> str | None:
    """Return a JSON value as plain text: a string unquoted, null as None, a number's digits."""
    if value is None or value == b"null":
        return None
    text = value.decode()
    return str(parsed(text)) if text.startswith('"') else text
