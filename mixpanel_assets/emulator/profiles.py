"""Profiles: people who signed up, their companies, saved cohorts, and updates from clients.

Mixpanel shows profiles as they are now, so they depend on the emulator's clock.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import log
from typing import Any, overload
from zlib import crc32

from mixpanel_assets.emulator.expressions import is_number
from mixpanel_assets.emulator.received import InvalidRecordError
from mixpanel_assets.emulator.sample import PLACES, PLANS, SCREENS, Shop, User, mix

Profile = dict[str, Any]

GROUP_KEY = "-1405123841946871899"  # an observed form: a signed 64-bit number as text
NAMES = ("Ada", "Linus", "Åsa", "Олена", "José", "葵", "Zoë", "Prisha", "O'Neil", "Björk 🎧")
FAMILIES = ("Lo", "Ångström", "Шевченко", "García", "佐藤", "Nair", "Smith", "von der Leyen")
WITHOUT_LAST_SEEN = 41  # every 41st profile: not all senders set `$last_seen`
WITHOUT_PROPERTIES = 13  # the one profile without properties


class Person(Mapping[str, Any]):
    """The properties of one user's profile, computed when they are read."""

    def __init__(self, properties_of: Callable[[str], Mapping[str, Any]], identity: str) -> None:
        self._properties_of = properties_of
        self._identity = identity

    def __getitem__(self, name: str) -> Any:
        return self._properties_of(self._identity)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._properties_of(self._identity))

    def __len__(self) -> int:
        return len(self._properties_of(self._identity))


@dataclass(frozen=True)
class Cohort:
    """A saved cohort: a condition on profiles, and ids without a profile."""

    id: int
    name: str
    description: str
    created: str
    visible: bool
    holds: Callable[[Profile], bool]
    without_profile: tuple[str, ...] = ()


def _property(profile: Profile, name: str) -> Any:
    return (profile["$properties"] or {}).get(name)


COHORTS = (
    Cohort(
        1000,
        "Paying",
        "Plans that cost money",
        "2019-03-19 23:49:51",
        True,
        lambda profile: _property(profile, "plan") in ("pro", "team"),
        ("$device:00c0ffee-0001", "$device:00c0ffee-0002"),
    ),
    Cohort(
        2000,
        "Newsletter",
        "",
        "2023-11-02 08:00:00",
        True,
        lambda profile: _property(profile, "newsletter") is True,
    ),
    Cohort(
        3000,
        "Never seen",
        "Profiles without $last_seen",
        "2024-01-05 10:30:00",
        False,
        lambda profile: _property(profile, "$last_seen") is None,
    ),
)


class UserProfiles(Sequence[Profile]):
    """The newest sign-ups as profiles, oldest first. Each is computed when it is read.

    A project of a million profiles therefore needs only the memory of one page.
    """

    def __init__(self, shop: Shop, last: date, now: datetime, count: int) -> None:
        """Select the last `count` sign-ups up to the day `last`; none was seen after `now`."""
        self._shop, self._last, self._now, self._count = shop, last, now, count
        # The number of sign-ups after a day, by the distance of that day from the last one.
        self._later = [0]
        while self._later[-1] < count:
            day = last - timedelta(days=len(self._later) - 1)
            self._later.append(self._later[-1] + shop.sign_ups(day))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Profile: ...
    @overload
    def __getitem__(self, index: slice) -> list[Profile]: ...
    def __getitem__(self, index: int | slice) -> Profile | list[Profile]:
        if isinstance(index, slice):
            return [self._profile(one) for one in range(self._count)[index]]
        return self._profile(range(self._count)[index])

    def _profile(self, index: int) -> Profile:
        newer = self._count - 1 - index
        back = bisect_right(self._later, newer)
        user = self._shop.user(self._last - timedelta(days=back - 1), self._later[back] - 1 - newer)
        if index == WITHOUT_PROPERTIES:
            nothing: Profile | None = None if self._shop.settings.null_properties else {}
            return {"$distinct_id": user.distinct_id, "$properties": nothing}
        return _profile(user, index, self._last, self._now)


def _profile(user: User, index: int, last: date, now: datetime) -> Profile:
    bits = user.mix
    city, region, country, _, zone = PLACES[user.place]
    first = NAMES[bits % len(NAMES)]
    family = FAMILIES[(bits >> 4) % len(FAMILIES)]
    created = min(_moment(user.signed_up, bits), now)
    properties: dict[str, Any] = {
        "$created": created.strftime("%Y-%m-%dT%H:%M:%S"),
        "$email": f"u{bits:08x}@example.com",
        "$name": f"{first} {family}",
        "$first_name": first,
        "$last_name": family,
        "$city": city,
        "$region": region,
        "$country_code": country,
        "$timezone": zone,
        "$browser": SCREENS[user.screen][0],
        "$os": SCREENS[user.screen][2],
        "plan": PLANS[bits % len(PLANS)],
        "newsletter": bool(bits & 64),
        "logins": 1 + bits % 90,
        "beta": bits % 5 == 0,
        "tags": ["x"] if bits % 3 else [],
        "address": {"zip": f"{bits % 100_000:05d}", "street": None},
        "customer_number": 9_007_199_254_740_993 + bits,
        "balance": (bits % 100_000) / 100,
    }
    if index % WITHOUT_LAST_SEEN != 7:
        seen = min(max(_last_seen(user, last), created), now)
        properties["$last_seen"] = seen.strftime("%Y-%m-%dT%H:%M:%S")
    if index % 50 == 20:
        properties |= {
            "Plan": "shouted",
            "email": "plain@example.com",
            "a.b": 'q"',
            "": "empty name",
        }
    return {"$distinct_id": user.distinct_id, "$properties": properties}


def _moment(day: date, bits: int) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(
        seconds=25_200 + bits % 54_000
    )


def _last_seen(user: User, last: date) -> datetime:
    """Return a time within the last days for most people, and the sign-up for some."""
    share = mix(user.mix, 5) / 2**32
    back = int(-log(1 - share) * 6)
    return _moment(max(user.signed_up, last - timedelta(days=back)), mix(user.mix, 6))


def group_profiles(count: int) -> list[Profile]:
    """Return the profiles of companies."""
    return [
        {
            "$distinct_id": f"company-{number}",
            "$properties": {
                "$name": f"Rösterei {number} & Söhne",
                "employees": 3 * number,
                "$last_seen": "2024-01-10T12:00:00",
                "data_group_id": -1_405_123_841_946_871_899,
            },
        }
        for number in range(1, count + 1)
    ]


Properties = dict[str, Any]

USER_OPERATIONS = ("$set", "$set_once", "$add", "$append", "$union", "$remove", "$unset", "$delete")
GROUP_OPERATIONS = ("$set", "$set_once", "$add", "$union", "$remove", "$unset", "$delete")
# These do nothing without a profile; the other operations create one.
OF_EXISTING = ("$remove", "$unset", "$delete")


def operation_of(record: Mapping[str, Any], known: Sequence[str]) -> tuple[str, Any]:
    """Return the one operation of a record, and its value, checked by type."""
    operations = [name for name in known if name in record]
    if len(operations) != 1:
        raise InvalidRecordError("operation", f"must be one of {', '.join(known)}")
    (name,) = operations
    value = record[name]
    if name == "$unset":
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise InvalidRecordError(name, "must be a list of strings")
    elif name != "$delete" and not isinstance(value, dict):
        raise InvalidRecordError(name, "must be an object")
    if name == "$add" and not all(map(is_number, value.values())):
        raise InvalidRecordError(name, "values must be numbers")
    if name == "$union" and not all(isinstance(one, list) for one in value.values()):
        raise InvalidRecordError(name, "values must be lists")
    return name, value


def apply_operation(properties: Properties, operation: str, value: Any) -> Properties:
    """Return a profile's properties after an operation other than `$delete`."""
    if operation == "$set":
        return {**properties, **value}
    if operation == "$set_once":
        return {**value, **properties}
    if operation == "$unset":
        return {name: own for name, own in properties.items() if name not in value}
    operations = {"$add": _add, "$append": _append, "$union": _union, "$remove": _remove}
    new = {name: operations[operation](properties.get(name), one) for name, one in value.items()}
    if operation == "$remove":
        new = {name: one for name, one in new.items() if name in properties}
    return properties | new


def _add(own: Any, value: Any) -> Any:
    if own is None:
        return value
    return own + value if is_number(own) else own


def _as_list(own: Any) -> list[Any]:
    if own is None:
        return []
    return own if isinstance(own, list) else [own]


def _append(own: Any, value: Any) -> list[Any]:
    return [*_as_list(own), value]


def _union(own: Any, values: list[Any]) -> list[Any]:
    result = list(_as_list(own))
    for value in values:
        if value not in result:
            result.append(value)
    return result


def _remove(own: Any, value: Any) -> Any:
    return [one for one in own if one != value] if isinstance(own, list) else own


class ProfileUpdates:
    """The profiles that clients changed, in addition to those of the sample."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By group, then by id. None is a deleted profile.
        self._profiles: defaultdict[str | None, dict[str, Properties | None]] = defaultdict(dict)
        self._groups = {"company": GROUP_KEY}

    def data_group_id(self, group_key: str) -> str:
        """Return the number of a group key, which requests of its profiles use."""
        number = crc32(group_key.encode()) * 0x9E3779B97F4A7C15 % 2**64 - 2**63
        return self._groups.setdefault(group_key, str(number))

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
        """Change one profile of a group, or of the users (None).

        `own` are its properties in the sample, if it is there. Without `last_seen`, the profile's
        `$last_seen` is unchanged.
        """
        with self._lock:
            before = self._profiles[group].get(identity, own)
            if before is None and operation in OF_EXISTING:
                return
            after = None
            if operation != "$delete":
                after = apply_operation(before or {}, operation, value)
                if last_seen is not None:
                    after |= {"$last_seen": last_seen}
            self._profiles[group][identity] = after

    def clear(self) -> None:
        """Remove all changes."""
        with self._lock:
            self._profiles.clear()

    def properties(
        self, group: str | None, identity: str, own: Properties | None
    ) -> Properties | None:
        """Return the properties of one profile; `own` are those in the sample, or None."""
        with self._lock:
            return self._profiles[group].get(identity, own)

    def apply(self, group: str | None, profiles: Sequence[Profile]) -> Sequence[Profile]:
        """Return the sample's profiles with all changes, and new profiles at the end."""
        with self._lock:
            changes = dict(self._profiles.get(group, {}))
        if not changes:
            return profiles
        current = {
            profile["$distinct_id"]: profile["$properties"] for profile in profiles
        } | changes
        return [
            {"$distinct_id": identity, "$properties": properties}
            for identity, properties in current.items()
            if properties is not None or identity not in changes
        ]
