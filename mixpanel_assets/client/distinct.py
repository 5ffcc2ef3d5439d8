"""DistinctIds: how many different ids came, at 8 bytes a slot and at most 24 bytes an id."""

from __future__ import annotations

from array import array

_FIRST_SLOTS = 1 << 10


class DistinctIds:
    """A set of which only the hashes are kept, in one flat array.

    Two different ids share one of 2^64 hashes once in 4 million sets of 3 million ids.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._slots = array("q", bytes(8 * _FIRST_SLOTS))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, identity: str) -> bool:
        return bool(self._slots[self._slot(_hash(identity))])

    def add(self, identity: str) -> None:
        """Count an id, unless it came before."""
        slot = self._slot(key := _hash(identity))
        if self._slots[slot]:
            return
        self._slots[slot] = key
        self._count += 1
        if self._count * 3 > len(self._slots) * 2:
            self._grow()

    def _slot(self, key: int) -> int:
        """Return where a hash lies, or the free place where it is to lie."""
        slots, mask = self._slots, len(self._slots) - 1
        place = key & mask
        while slots[place] not in (0, key):
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        before, self._slots = self._slots, array("q", bytes(16 * len(self._slots)))
        for key in before:
            if key:
                self._slots[self._slot(key)] = key


def _hash(identity: str) -> int:
    return hash(identity) or 1  # 0 is a free place
