"""Which ids are one person: clusters of `distinct_id` that clients made by their events.

Only merges that arrive at the emulator are here; those of the sample are in its rows. They take
effect at once; at Mixpanel it may take a day.
Source: Mixpanel docs, Identifying Users (Simplified) and (Original); read 2026-11.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from zlib import crc32

from mixpanel_assets.emulator.sample import Block

DEVICE = "$device:"
MOST_IDS = 500

_UUID4 = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE
)
# Anchored at both ends of what every line begins with, so that no value can be taken for it.
_DISTINCT_ID = re.compile(
    rb'^(\{"event":"(?:[^"\\]|\\.)*","properties":\{"time":-?\d+,"distinct_id":)'
    rb'"((?:[^"\\]|\\.)*)"'
)
_BEFORE = b'"$distinct_id_before_identity":'


def identity_of(properties: Mapping[str, Any]) -> str | None:
    """Return the `distinct_id` that an event of a project with simplified merges gets."""
    if user_id := as_id(properties.get("$user_id")):
        return user_id
    if device_id := as_id(properties.get("$device_id")):
        return DEVICE + device_id.removeprefix(DEVICE)
    return as_id(properties.get("distinct_id"))


def as_id(value: Any) -> str | None:
    """Return an id as text, which is how ids are treated; None when there is none."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


class Identities:
    """The clusters; `version` grows with each change."""

    def __init__(self) -> None:
        self._clusters: dict[str, set[str]] = {}
        self._users: dict[str, str] = {}
        self.version = 0

    def canonical(self, identity: str) -> str:
        """Return the id that queries and exports show."""
        user = self._users.get(identity)
        if user is not None:
            return user
        cluster = self._clusters.get(identity) or self._clusters.get(identity.removeprefix(DEVICE))
        # Mixpanel chooses as it likes, the device's id included. Here chance decides, once.
        return min(cluster, key=lambda one: crc32(one.encode())) if cluster else identity

    def link(self, properties: Mapping[str, Any]) -> None:
        """Note that a device belongs to a user: what simplified merges do, the first time only."""
        user, device = as_id(properties.get("$user_id")), as_id(properties.get("$device_id"))
        if not user or not device:
            return
        device = device.removeprefix(DEVICE)
        for identity in (device, DEVICE + device):
            if identity != user and identity not in self._users:
                self._users[identity] = user
                self.version += 1

    def merge(self, event: str, properties: Mapping[str, Any]) -> str | None:
        """Do what an identity event asks for, as original merges do.

        Returns:
            Why nothing was merged, in words of our own; None when it was.
        """
        if event == "$identify":
            return self._identify(properties)
        if event == "$create_alias":
            alias, other = as_id(properties.get("alias")), as_id(properties.get("distinct_id"))
            if alias in self._clusters:
                return "the alias points to another id already"
            return self._join(alias, other)
        ids = properties.get("$distinct_ids")
        if not isinstance(ids, list) or len(ids) != 2:
            return "$distinct_ids must hold two ids"
        return self._join(as_id(ids[0]), as_id(ids[1]))

    def _identify(self, properties: Mapping[str, Any]) -> str | None:
        user = as_id(properties.get("$identified_id"))
        device = (as_id(properties.get("$anon_id")) or "").removeprefix(DEVICE)
        if not _UUID4.fullmatch(device):
            return "$anon_id must be a UUID version 4"
        if device in self._clusters and user not in self._clusters[device]:
            return "$anon_id belongs to another id already"
        return self._join(device, user)

    def _join(self, one: str | None, other: str | None) -> str | None:
        if not one or not other:
            return "an id is missing"
        cluster = self._clusters.get(one, {one}) | self._clusters.get(other, {other})
        if len(cluster) > MOST_IDS:
            return f"a cluster holds {MOST_IDS} ids at most"
        for identity in cluster:
            self._clusters[identity] = cluster
        self.version += 1
        return None

    def rekeyed(self, block: Block) -> Block:
        """Return the block with today's ids; rows that change say what theirs was."""
        if not self.version:
            return block
        return Block([self._rekeyed(line) for line in block.lines], block.times, block.processed)

    def _rekeyed(self, line: bytes) -> bytes:
        match = _DISTINCT_ID.match(line)
        if match is None:
            return line
        text = match.group(2)
        before = json.loads(b'"%b"' % text) if b"\\" in text else text.decode()
        now = self.canonical(before)
        if now == before:
            return line
        told = b"" if _BEFORE in line else b',%b"%b"' % (_BEFORE, text)
        shown = json.dumps(now, ensure_ascii=False).encode()
        return b"%b%b%b%b" % (match.group(1), shown, told, line[match.end() :])
