"""The sample data: a small, growing web shop.

People visit (more at noon and in the evening, fewer on weekends), view products, fill carts
and order. Some sign up, and return less and less often. A day's records depend only on the
settings and the day. A day is computed in blocks, so that a million events are never in memory at
once. Property names and shapes follow the documented export.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from math import exp, log
from random import Random
from typing import NamedTuple
from zlib import crc32
from zoneinfo import ZoneInfo

from mixpanel_assets.emulator import oddities
from mixpanel_assets.emulator.settings import EmulatorSettings

# City, region, country, currency, zone.
PLACES = (
    ("Lyon", "Rhone", "FR", "EUR", "Europe/Paris"),
    ("Berlin", "Berlin", "DE", "EUR", "Europe/Berlin"),
    ("Århus", "Midtjylland", "DK", "DKK", "Europe/Copenhagen"),
    ("Київ", "Київ", "UA", "UAH", "Europe/Kyiv"),
    ("Харків", "Харківська область", "UA", "UAH", "Europe/Kyiv"),
    ("San José", "California", "US", "USD", "America/Los_Angeles"),
    ("Austin", "Texas", "US", "USD", "America/Chicago"),
    ("São Paulo", "São Paulo", "BR", "BRL", "America/Sao_Paulo"),
    ("東京", "東京都", "JP", "JPY", "Asia/Tokyo"),
    ("London", "England", "GB", "GBP", "Europe/London"),
    ("Pune", "Maharashtra", "IN", "INR", "Asia/Kolkata"),
    ("Åre", "Jämtland", "SE", "SEK", "Europe/Stockholm"),
)
# Browser, version, system, width, height, device.
SCREENS = (
    ("Chrome", "131", "Mac OS X", 1728, 1117, "Mac"),
    ("Chrome", "131", "Windows", 1920, 1080, "PC"),
    ("Chrome", "130", "Android", 412, 915, "Pixel 8"),
    ("Safari", "18.1", "Mac OS X", 1512, 982, "Mac"),
    ("Mobile Safari", '"18.1"', "iOS", 390, 844, "iPhone"),
    ("Firefox", "132", "Linux", 2560, 1440, "PC"),
)
REFERRERS = (
    '"$initial_referrer":"$direct"',
    '"$initial_referrer":"https://www.search.example/","$search_engine":"search"',
    '"$initial_referrer":"https://news.example/a?id=1&x=%20","utm_source":"newsletter",'
    '"utm_campaign":"Früh & spät"',
)
# Id, name, category, price in hundredths.
PRODUCTS = (
    ("A1", "Espresso beans 1 kg", "Coffee", 2190),
    ("A2", "Filter coffee, Æthiopia", "Coffee", 1450),
    ("A3", "Decaf (250 g)", "Coffee", 790),
    ("B1", 'Dripper 02 "white"', "Gear", 2400),
    ("B2", "Hand mill", "Gear", 6990),
    ("B3", "Kettle 1.0 l", "Gear", 11900),
    ("B7", "Scale", "Gear", 3950),
    ("C1", "Mug · Å", "Mugs", 1290),
    ("C2", "Mug ☕", "Mugs", 1290),
    ("D1", "Gift card", "Gifts", 2500),
    ("D2", "Brewing course", "Gifts", 8900),
)
SEARCHES = ("mug", "espresso", "tasse à café", "кава", "コーヒー", "hand mill", "gift", "decaf 250")
PAGES = (
    ("Home", ""),
    ("Coffee", "coffee"),
    ("Gear", "gear"),
    ("About us", "about"),
    ("Blog", "blog"),
)
PLANS = ("free", "free", "free", "pro", "pro", "team")


def json_text(value: object) -> str:
    """Return JSON as real senders write it: without spaces, and with unescaped letters."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


PLACE_TEXTS = [
    f'"$city":{json_text(city)},"$region":{json_text(region)},"mp_country_code":"{country}"'.encode()
    for city, region, country, _, _ in PLACES
]
SCREEN_TEXTS = [
    f'"$browser":"{browser}","$browser_version":{version},"$os":"{system}",'
    f'"$screen_height":{height},"$screen_width":{width},"$device":"{device}",'
    f'"mp_lib":"web","$lib_version":"2.56.0"'.encode()
    for browser, version, system, width, height, device in SCREENS
]
REFERRER_TEXTS = [text.encode() for text in REFERRERS]
PRODUCT_TEXTS = [
    (
        f'"product_id":"{key}","product_name":{json_text(name)},"category":"{category}",'
        f'"price":{price / 100:.2f},'
        f'"Tags":{json_text([category.lower(), "new" if price > 2000 else "eu"])}'
    ).encode()
    for key, name, category, price in PRODUCTS
]
PAGE_TEXTS = [
    f'"$current_url":"https://shop.example/{path}","page":"{title}",'
    f'"title":"{title} | shop.example"'.encode()
    for title, path in PAGES
]
SEARCH_TEXTS = [json_text(text).encode() for text in SEARCHES]
CURRENCIES = [place[3].encode() for place in PLACES]
COUNTRIES = [place[2].encode() for place in PLACES]


BLOCK_EVENTS = 4096  # about 2.5 MB of lines: little memory, and few blocks per day
STORY_EVENTS = (
    "Page View",
    "Search",
    "Product Viewed",
    "Added To Cart",
    "Order Completed",
    "Sign Up",
    "$identify",
)
EVENT_NAMES = frozenset(STORY_EVENTS) | oddities.EVENT_NAMES
DAY_MS = 86_400_000
SLOT_MS = 900_000  # zones differ from UTC by multiples of a quarter of an hour
SIGN_UP_SHARE = 0.012
LATEST_VISIT_SECOND = 84_600  # a visit of half an hour must end on the same day

WEEKDAYS = (1.05, 1.0, 1.02, 1.08, 1.15, 0.86, 0.78)
HOURS = (3, 2, 1, 1, 1, 2, 4, 7, 9, 10, 11, 13, 15, 13, 11, 10, 11, 13, 16, 19, 21, 18, 12, 6)


# A line as sent, without line end; the event's time and processing time in UTC milliseconds.
# A plain tuple, because a class would make the computation of a day a fifth slower.
Row = tuple[bytes, int, int]
Block = list[Row]  # part of a day


class User(NamedTuple):
    """A visitor who signed up; `number` is the position within the day `signed_up`."""

    signed_up: date
    number: int
    distinct_id: str
    device: str
    place: int
    screen: int
    mix: int


@dataclass(frozen=True)
class SampleDay:
    """Values that are computed once per day."""

    day: date
    start_ms: int
    events: int
    sign_ups: int
    blocks: int
    number: int
    offsets: tuple[int, ...]
    gaps: frozenset[int]


def mix(*numbers: int) -> int:
    """Return 32 pseudo-random bits that depend only on the numbers."""
    value = crc32(b",".join(b"%d" % number for number in numbers)) * 0x9E3779B1 & 0xFFFFFFFF
    value ^= value >> 15
    value = value * 0x85EBCA77 & 0xFFFFFFFF
    return value ^ value >> 13


_HOUR_PICKS = [hour for hour, weight in enumerate(HOURS) for _ in range(weight)]

_LINE = (
    b'{"event":"%b","properties":{"time":%d,"distinct_id":"%b",%b,"$insert_id":"%016x",'
    b'"$mp_api_endpoint":"api-js.mixpanel.com","$mp_api_timestamp_ms":%d,"$mp_event_size":%d,'
    b'"mp_processing_time_ms":%d,%b}}'
)
_ODD_LINE = (
    '{"event":%s,"properties":{"time":%d%s,"$mp_api_endpoint":"api.mixpanel.com",'
    '"$mp_api_timestamp_ms":%d,"mp_processing_time_ms":%d,%s}}'
)


class Shop:
    """Computes the events of any day."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self.settings = settings
        self.zone = ZoneInfo(settings.zone)
        self.sample: Callable[[date], SampleDay] = lru_cache(maxsize=512)(self._sample_day)

    def volume(self, day: date) -> int:
        """Return the number of events of the day without duplicates."""
        exact = self.settings.exact_events
        if isinstance(exact, int):
            return exact
        if exact is not None and day in exact:
            return exact[day]
        weeks = max((day - self.settings.start).days, 0) / 7
        growth = 0.8 + 0.6 * (1 - exp(-weeks / 8))
        noise = 0.94 + 0.12 * mix(self.settings.seed, day.toordinal(), 1) / 2**32
        return max(
            1, round(self.settings.events_per_day * WEEKDAYS[day.weekday()] * growth * noise)
        )

    def sign_ups(self, day: date) -> int:
        """Return the number of sign-ups on the day."""
        return max(1, round(self.volume(day) * SIGN_UP_SHARE))

    def user(self, day: date, number: int) -> User:
        """Return the person with this position among the sign-ups of the day."""
        serial = (day - self.settings.start).days * 100_000 + number
        bits = mix(self.settings.seed, serial, 2)
        stem = serial + 40_000_000
        # Some senders use numbers as ids; a copy must keep them as text.
        name = f"{stem}" if bits % 17 == 3 else f"user-{stem}"
        device = f"{bits:08x}-{mix(serial, 3) & 0xFFFF:04x}"
        return User(day, number, name, device, bits % len(PLACES), (bits >> 8) % len(SCREENS), bits)

    def block(self, day: date, index: int, *, time_in_ms: bool) -> Block:
        """Return one block of a day, unsorted and with duplicates."""
        return _BlockMaker(self, self.sample(day), index, time_in_ms=time_in_ms).make()

    def _sample_day(self, day: date) -> SampleDay:
        start_ms = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
        offsets, gaps = self._offsets(start_ms)
        events = self.volume(day)
        return SampleDay(
            day=day,
            start_ms=start_ms,
            events=events,
            sign_ups=self.sign_ups(day),
            blocks=max(1, -(-events // BLOCK_EVENTS)),
            number=(day - self.settings.start).days,
            offsets=offsets,
            gaps=gaps,
        )

    def _offsets(self, start_ms: int) -> tuple[tuple[int, ...], frozenset[int]]:
        """Return, by quarter of an hour, raw time minus UTC; and the quarters that do not exist."""
        slots = DAY_MS // SLOT_MS
        if self.settings.regime == "utc":
            return (0,) * slots, frozenset()
        offsets = []
        gaps = set()
        for slot in range(slots):
            wall = datetime.fromtimestamp(start_ms / 1000 + slot * SLOT_MS / 1000, UTC)
            local = wall.replace(tzinfo=self.zone)
            offset = local.utcoffset() or timedelta()
            offsets.append(int(offset.total_seconds() * 1000))
            if local.astimezone(UTC).astimezone(self.zone).replace(tzinfo=UTC) != wall:
                gaps.add(slot)
        return tuple(offsets), frozenset(gaps)


class _BlockMaker:
    """Computes one block. The state is in attributes for the speed of the inner loop."""

    def __init__(self, shop: Shop, sample: SampleDay, index: int, *, time_in_ms: bool) -> None:
        self.shop = shop
        self.sample = sample
        self.index = index
        self.unit = 1 if time_in_ms else 1000
        self.random = Random(f"{shop.settings.seed}/{sample.day}/{index}")
        self.early_clicks = shop.settings.early_clicks
        self.want = min(BLOCK_EVENTS, sample.events - index * BLOCK_EVENTS)
        self.rows: Block = []

    def make(self) -> Block:
        odd_rows = self._odd_rows() if self.index == 0 else []
        room = self.want - len(odd_rows)
        for number in range(self.index, self.sample.sign_ups, self.sample.blocks):
            if len(self.rows) >= room:
                break
            self._sign_up(self.shop.user(self.sample.day, number))
        chance = self.random.random
        while len(self.rows) < room:
            if chance() < 0.45:
                self._anonymous_visit()
            else:
                self._known_visit()
        del self.rows[room:]
        self._add_duplicates()
        return self.rows + odd_rows

    def _second(self) -> int:
        chance = self.random.random
        hour = _HOUR_PICKS[int(chance() * len(_HOUR_PICKS))]
        return min(hour * 3600 + int(chance() * 3600), LATEST_VISIT_SECOND)

    def _start(self) -> int:
        return self.sample.start_ms + self._second() * 1000 + int(self.random.random() * 1000)

    def _emit(self, event: bytes, time: int, person: bytes, common: bytes, own: bytes) -> None:
        sample = self.sample
        slot = (time - sample.start_ms) // SLOT_MS
        while slot in sample.gaps:
            time += SLOT_MS
            slot += 1
        happened = time - sample.offsets[slot]
        bits = self.random.getrandbits(64)
        received = happened + 300 + (bits & 0xFFF)
        processed = received + 700 + (bits >> 12 & 0x7FF)
        size = 400 + (bits >> 24 & 0xFF)
        fields = (event, time // self.unit, person, common, bits, received, size, processed, own)
        self.rows.append((_LINE % fields, happened, processed))

    def _known_visit(self) -> None:
        user = self._returning_user()
        self._visit(user.distinct_id.encode(), user.place, self._start(), _common(user), known=True)

    def _returning_user(self) -> User:
        chance = self.random.random
        back = 1 + int(-log(1.0 - chance()) * 30)
        day = self.sample.day - timedelta(days=back)
        return self.shop.user(day, int(chance() * self.shop.sample(day).sign_ups))

    def _anonymous_visit(self) -> None:
        chance = self.random.random
        # Most devices are new, some come back on later days.
        week = self.sample.day.toordinal() // 7
        serial = int(chance() * self.sample.events * 2) + week * 1_000_000
        bits = mix(serial, 4)
        device = b"%08x-%04x" % (bits, serial & 0xFFFF)
        place = bits % len(PLACES)
        common = b'%b,%b,%b,"$device_id":"%b"' % (
            SCREEN_TEXTS[(bits >> 6) % len(SCREENS)],
            PLACE_TEXTS[place],
            REFERRER_TEXTS[(bits >> 10) % len(REFERRERS)],
            device,
        )
        self._visit(b"$device:" + device, place, self._start(), common, known=False)

    def _visit(self, person: bytes, place: int, time: int, common: bytes, *, known: bool) -> None:
        chance = self.random.random
        emit = self._emit
        emit(b"Page View", time, person, common, PAGE_TEXTS[int(chance() * len(PAGE_TEXTS))])
        if chance() < 0.25:
            time += 8_000 + int(chance() * 40_000)
            own = b'"query":%b,"results":%d' % (
                SEARCH_TEXTS[int(chance() * len(SEARCH_TEXTS))],
                int(chance() * 12),
            )
            emit(b"Search", time, person, common, own)
        cart: list[tuple[int, int]] = []
        while chance() < (0.62 if known else 0.45) and len(cart) < 6:
            time += 10_000 + int(chance() * 60_000)
            product = int(chance() * chance() * len(PRODUCTS))
            emit(b"Product Viewed", time, person, common, PRODUCT_TEXTS[product])
            if chance() < (0.45 if known else 0.12):
                viewed = time
                time += 4_000 + int(chance() * 30_000)
                quantity = 1 + int(chance() * 3)
                cart.append((product, quantity))
                own = b'%b,"quantity":%d,"Cart Size (# of Items)":%d' % (
                    PRODUCT_TEXTS[product],
                    quantity,
                    sum(count for _, count in cart),
                )
                early = self.early_clicks and len(cart) == 1 and time % 5 == 0
                emit(b"Added To Cart", viewed - 1_500 if early else time, person, common, own)
        if cart and known and chance() < 0.6:
            time += 30_000 + int(chance() * 120_000)
            emit(b"Order Completed", time, person, common, self._order(cart, place))

    def _order(self, cart: list[tuple[int, int]], place: int) -> bytes:
        chance = self.random.random
        total = sum(PRODUCTS[product][3] * quantity for product, quantity in cart)
        coupon = b'"WELCOME10"' if chance() < 0.2 else b"null"
        items = b",".join(
            b'{"sku":"%b","qty":%d,"price":%.2f}'
            % (PRODUCTS[product][0].encode(), quantity, PRODUCTS[product][3] / 100)
            for product, quantity in cart
        )
        return (
            b'"order_id":"%08x","amount":%.2f,"currency":"%b","country":"%b","coupon":%b,'
            b'"First Order":%b,"items":[%b],"Ship To":{"city":null,"zip":"%05d"}'
        ) % (
            self.random.getrandbits(32),
            total / 100,
            CURRENCIES[place],
            COUNTRIES[place],
            coupon,
            b"true" if chance() < 0.3 else b"false",
            items,
            int(chance() * 99999),
        )

    def _sign_up(self, user: User) -> None:
        """Two pages as a device, then the sign-up, then perhaps a visit."""
        chance = self.random.random
        time = self._start()
        person = user.distinct_id.encode()
        common = _common(user)
        before = b'%b,"$distinct_id_before_identity":"$device:%b"' % (common, user.device.encode())
        self._emit(b"Page View", time, person, before, PAGE_TEXTS[0])
        time += 15_000 + int(chance() * 60_000)
        self._emit(b"Page View", time, person, before, PAGE_TEXTS[1])
        time += 20_000 + int(chance() * 90_000)
        own = b'"method":"%b","plan":"%b","newsletter":%b,"referred_by":null' % (
            b"email" if chance() < 0.7 else b"google",
            PLANS[user.mix % len(PLANS)].encode(),
            b"true" if user.mix & 64 else b"false",
        )
        self._emit(b"Sign Up", time, person, common, own)
        own = b'"$identified_id":"%b","$anon_id":"%b"' % (person, user.device.encode())
        self._emit(b"$identify", time + 120, person, common, own)
        if chance() < 0.6:
            self._visit(person, user.place, time + 5_000, common, known=True)

    def _add_duplicates(self) -> None:
        """Append duplicates as Mixpanel sends them: exact, newer, or with another id."""
        chance = self.random.random
        count = len(self.rows)
        rate = self.shop.settings.duplicates_rate
        duplicates = int(count * rate + chance()) if rate else 0
        for _ in range(duplicates):
            line, happened_ms, processed_ms = self.rows[int(chance() * count)]
            kind = chance()
            if kind > 0.3:
                later_ms = processed_ms + 60_000 + int(chance() * 3_600_000)
                line = _with_processing_time(line, processed_ms, later_ms)
                if kind > 0.65:
                    line = self._under_user_id(line)
                processed_ms = later_ms
            self.rows.append((line, happened_ms, processed_ms))

    def _under_user_id(self, line: bytes) -> bytes:
        """Return the row after the device was connected with a user."""
        mark = b'"distinct_id":"$device:'
        at = line.find(mark)
        if at < 0:
            return line
        end = line.index(b'"', at + len(mark))
        device = line[at + len(b'"distinct_id":"') : end]
        user = self._returning_user().distinct_id.encode()
        ids = b'"distinct_id":"%b","$distinct_id_before_identity":"%b' % (user, device)
        return line[:at] + ids + line[end:]

    def _odd_rows(self) -> Block:
        settings = self.shop.settings
        room = self.want // 4
        odd_rows = oddities.rows(rich=settings.odd_content, room=room, turn=self.sample.number)
        shifted = settings.shifted_rows if settings.regime == "legacy" else 0
        return odd_block(self.sample, odd_rows, time_in_ms=self.unit == 1, shifted=shifted)


def odd_block(
    sample: SampleDay, rows: Iterable[oddities.OddRow], *, time_in_ms: bool, shifted: int = 0
) -> Block:
    """Return odd rows as lines. The first `shifted` ones have a time before the day."""
    block: Block = []
    for number, row in enumerate(rows):
        time = sample.start_ms + round(row.second * 1000)
        happened_ms = time - sample.offsets[(time - sample.start_ms) // SLOT_MS]
        if number < shifted:
            # The day and the time have different zones, as after a change of the project's zone.
            time = sample.start_ms - 3_600_000 * (number % 3 + 1)
        head = row.head.replace("{day}", sample.day.isoformat())
        received = happened_ms + 500
        text = _ODD_LINE % (
            json_text(row.event),
            time if time_in_ms else time // 1000,
            "," + head if head else "",
            received,
            received + 900,
            row.properties,
        )
        block.append((text.encode(), happened_ms, received + 900))
    return block


@lru_cache(maxsize=65_536)
def _common(user: User) -> bytes:
    return b'%b,%b,%b,"$device_id":"%b","$user_id":"%b"' % (
        SCREEN_TEXTS[user.screen],
        PLACE_TEXTS[user.place],
        REFERRER_TEXTS[user.mix % len(REFERRERS)],
        user.device.encode(),
        user.distinct_id.encode(),
    )


def _with_processing_time(line: bytes, old: int, new: int) -> bytes:
    name = b'"mp_processing_time_ms":%d'
    return line.replace(name % old, name % new, 1)
