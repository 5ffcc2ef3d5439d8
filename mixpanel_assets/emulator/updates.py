"""Changes to profiles that clients sent.

Source: Mixpanel's OpenAPI file of the Ingestion API; read 2026-11.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from zlib import crc32

from mixpanel_assets.emulator.profiles import GROUP_KEY, Profile
from mixpanel_assets.emulator.sent import InvalidRecordError

Properties = dict[str, Any]

USER_OPERATIONS = ("$set", "$set_once", "$add", "$append", "$union", "$remove", "$unset", "$delete")
GROUP_OPERATIONS = ("$set", "$set_once", "$add", "$union", "$remove", "$unset", "$delete")
# These change nothing when there is no profile; the others make one.
OF_EXISTING = ("$remove", "$unset", "$delete")


def operation_of(record: Mapping[str, Any], known: Sequence[str]) -> tuple[str, Any]:
    """Return what a record asks for, and its value.

    Raises:
        InvalidRecordError: It asks for nothing, for two things, or with a value of a wrong type.
    """
    asked = [name for name in known if name in record]
    if len(asked) != 1:
        raise InvalidRecordError("operation", f"must be one of {', '.join(known)}")
    (name,) = asked
    value = record[name]
    if name == "$unset":
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise InvalidRecordError(name, "must be a list of strings")
    elif name != "$delete" and not isinstance(value, dict):
        raise InvalidRecordError(name, "must be an object")
    if name == "$add" and not all(map(_is_number, value.values())):
        raise InvalidRecordError(name, "values must be numbers")
    if name == "$union" and not all(isinstance(one, list) for one in value.values()):
        raise InvalidRecordError(name, "values must be lists")
    return name, value


def changed(properties: Properties, operation: str, value: Any) -> Properties:
    """Return a profile's properties after a change other than `$delete`."""
    if operation == "$set":
        return {**properties, **value}
    if operation == "$set_once":
        return {**value, **properties}
    if operation == "$unset":
        return {name: own for name, own in properties.items() if name not in value}
    change = {"$add": _added, "$append": _appended, "$union": _united, "$remove": _removed}
    new = {name: change[operation](properties.get(name), one) for name, one in value.items()}
    if operation == "$remove":
        new = {name: one for name, one in new.items() if name in properties}
    return properties | new


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _added(own: Any, value: Any) -> Any:
    if own is None:
        return value
    return own + value if _is_number(own) else own


def _as_list(own: Any) -> list[Any]:
    if own is None:
        return []
    return own if isinstance(own, list) else [own]


def _appended(own: Any, value: Any) -> list[Any]:
    return [*_as_list(own), value]


def _united(own: Any, values: list[Any]) -> list[Any]:
    found = list(_as_list(own))
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _removed(own: Any, value: Any) -> Any:
    return [one for one in own if one != value] if isinstance(own, list) else own


class ProfileUpdates:
    """The profiles as clients left them, beside those of the sample."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By group, then by id. None stands for a deleted profile.
        self._profiles: defaultdict[str | None, dict[str, Properties | None]] = defaultdict(dict)
        self._groups = {"company": GROUP_KEY}

    def data_group_id(self, group_key: str) -> str:
        """Return the number of a group key, by which its profiles are asked for."""
        made = crc32(group_key.encode()) * 0x9E3779B97F4A7C15 % 2**64 - 2**63
        return self._groups.setdefault(group_key, str(made))

    def update(
        self,
        group: str | None,
        identity: str,
        own: Properties | None,
        operation: str,
        value: Any,
        *,
        last_seen: str | None,
    ) -> None:
        """Change one profile.

        Args:
            group: The group's number; None for users.
            identity: Whose profile.
            own: Its properties in the sample, if it is there.
            operation: What to do.
            value: With what.
            last_seen: The moment to note as `$last_seen`, if any.
        """
        with self._lock:
            before = self._profiles[group].get(identity, own)
            if before is None and operation in OF_EXISTING:
                return
            after = None
            if operation != "$delete":
                after = changed(before or {}, operation, value)
                if last_seen is not None:
                    after |= {"$last_seen": last_seen}
            self._profiles[group][identity] = after

    def clear(self) -> None:
        """Forget all changes."""
        with self._lock:
            self._profiles.clear()

    def properties(
        self, group: str | None, identity: str, own: Properties | None
    ) -> Properties | None:
        """Return the properties of one profile, which has `own` ones in the sample, or None."""
        with self._lock:
            return self._profiles[group].get(identity, own)

    def applied(self, group: str | None, profiles: Sequence[Profile]) -> Sequence[Profile]:
        """Return the sample's profiles with the changes made, new ones at the end."""
        with self._lock:
            changes = dict(self._profiles.get(group, {}))
        return list(_applied(profiles, changes)) if changes else profiles


def _applied(
    profiles: Sequence[Profile], changes: dict[str, Properties | None]
) -> Iterator[Profile]:
    for profile in profiles:
        identity = profile["$distinct_id"]
        if identity not in changes:
            yield profile
        elif (properties := changes.pop(identity)) is not None:
            yield {"$distinct_id": identity, "$properties": properties}
    for identity, properties in changes.items():
        if properties is not None:
            yield {"$distinct_id": identity, "$properties": properties}
