"""Profiles: the people who signed up, their companies, and the saved cohorts.

Mixpanel shows profiles as they are now, so they depend on the day the clock shows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import log
from typing import Any, overload

from mixpanel_assets.emulator.catalogue import PLACES, PLANS, SCREENS
from mixpanel_assets.emulator.sample import Shop, User, mix

Profile = dict[str, Any]

GROUP_KEY = "-1405123841946871899"
NAMES = ("Ada", "Linus", "Åsa", "Олена", "José", "葵", "Zoë", "Prisha", "O'Neil", "Björk 🎧")
FAMILIES = ("Lo", "Ångström", "Шевченко", "García", "佐藤", "Nair", "Smith", "von der Leyen")
WITHOUT_LAST_SEEN = 41
WITHOUT_PROPERTIES = 13


class Person(Mapping[str, Any]):
    """The properties of one user's profile, looked up when they are read."""

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
    """A saved cohort: a condition on profiles, and ids that have no profile."""

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
    """The newest sign-ups as profiles, oldest first; each is made whenever it is asked for.

    So a project of a million profiles takes no more memory than the page that is sent.
    """

    def __init__(self, shop: Shop, last: date, now: datetime, count: int) -> None:
        """Look `count` sign-ups back.

        Args:
            shop: Where people sign up.
            last: The last day that holds data.
            now: The time; nothing was seen later than this.
            count: How many profiles the project has.
        """
        self._shop, self._last, self._now, self._count = shop, last, now, count
        # How many signed up after a day, by how many days it lies before the last one.
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
            return [self._made(one) for one in range(self._count)[index]]
        return self._made(range(self._count)[index])

    def _made(self, index: int) -> Profile:
        newer = self._count - 1 - index
        back = bisect_right(self._later, newer)
        user = self._shop.user(self._last - timedelta(days=back - 1), self._later[back] - 1 - newer)
        if index == WITHOUT_PROPERTIES:
            nothing: Profile | None = None if self._shop.settings.null_properties else {}
            return {"$distinct_id": user.distinct_id, "$properties": nothing}
        return _profile(user, index, self._last, self._now)


def _profile(user: User, index: int, last: date, now: datetime) -> Profile:
    stirred = user.mix
    city, region, country, _, zone = PLACES[user.place]
    first = NAMES[stirred % len(NAMES)]
    family = FAMILIES[(stirred >> 4) % len(FAMILIES)]
    created = min(_moment(user.signed_up, stirred), now)
    properties: dict[str, Any] = {
        "$created": created.strftime("%Y-%m-%dT%H:%M:%S"),
        "$email": f"u{stirred:08x}@example.com",
        "$name": f"{first} {family}",
        "$first_name": first,
        "$last_name": family,
        "$city": city,
        "$region": region,
        "$country_code": country,
        "$timezone": zone,
        "$browser": SCREENS[user.screen][0],
        "$os": SCREENS[user.screen][2],
        "plan": PLANS[stirred % len(PLANS)],
        "newsletter": bool(stirred & 64),
        "logins": 1 + stirred % 90,
        "beta": stirred % 5 == 0,
        "tags": ["x"] if stirred % 3 else [],
        "address": {"zip": f"{stirred % 100_000:05d}", "street": None},
        "customer_number": 9_007_199_254_740_993 + stirred,
        "balance": (stirred % 100_000) / 100,
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


def _moment(day: date, stirred: int) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(
        seconds=25_200 + stirred % 54_000
    )


def _last_seen(user: User, last: date) -> datetime:
    """Most people were seen within days; some not since they signed up."""
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
