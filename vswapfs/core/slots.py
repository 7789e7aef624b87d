"""Slots: the places of segment size that a home offers, in RAM or on a tier.

Owns which slots are free, and pins: a slot that I/O is reading from or writing to is not given out
again before the I/O has ended, even if its segment is freed meanwhile. Never does I/O.
All of it is derived from the home words.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

_FREE: Final = 0
_USED: Final = 1


class Slots:
    """Common to both homes. Subclasses say what becomes of a slot that is free again."""

    def __init__(self, slot_count: int) -> None:
        self.slot_count = slot_count
        self._pins: Counter[int] = Counter()
        self._freed_while_pinned: set[int] = set()

    def pin(self, slot: int) -> None:
        self._pins[slot] += 1

    def unpin(self, slot: int) -> None:
        self._pins[slot] -= 1
        if not self._pins[slot]:
            del self._pins[slot]
            if slot in self._freed_while_pinned:
                self._freed_while_pinned.remove(slot)
                self._give_back(slot)

    def is_any_pinned(self) -> bool:
        return bool(self._pins)

    def give_back(self, slot: int) -> None:
        """The slot's segment is gone or has moved; the slot is free once nothing pins it."""
        if slot in self._pins:
            self._freed_while_pinned.add(slot)
        else:
            self._give_back(slot)

    def _give_back(self, slot: int) -> None:
        raise NotImplementedError


WARM_MAX: Final = 4
"""Free slots that keep their memory for the next segment: giving it back and touching it anew takes
3.8 us a page (tools/bench touch)."""


class RamSlots(Slots):
    """Slots of the pool. The last few freed are warm: they keep their memory, and are taken first.

    ``release`` gives a slot's memory back: not before I/O that reads from it has ended.
    """

    def __init__(
        self, slot_count: int, used: Iterable[int], release: Callable[[int], None]
    ) -> None:
        super().__init__(slot_count)
        self._release = release
        taken = set(used)
        self._cold = [slot for slot in reversed(range(slot_count)) if slot not in taken]
        self._warm: list[int] = []
        self._warming: set[int] = set()
        self.limit = slot_count
        """How many may be in use; moves with ``--pool-limit auto``."""
        self.kept_warm = 0
        """Free slots that should have their memory already, for when the machine has none left."""
        self.is_starved = False
        """The machine has no memory for more: what is used has to do, and goes to a tier now."""
        self.warm_up: Callable[[int], bool] = lambda _slot: True
        """Take memory for a free slot now; False if the machine has none to spare."""

    @property
    def warm_count(self) -> int:
        return len(self._warm)

    @property
    def is_warming(self) -> bool:
        """A slot gets its memory now."""
        return bool(self._warming)

    @property
    def will_be_warm(self) -> bool:
        """The same, and there is some to be had."""
        return self.is_warming and not self.is_starved

    @property
    def has_excess(self) -> bool:
        """Whether ``cool`` would give memory back."""
        return len(self._warm) > min(self.kept_warm, self.free_count) and not self._warming

    @property
    def unused_count(self) -> int:
        """Slots not in use, whatever the limit."""
        return len(self._cold) + len(self._warm) + len(self._warming)

    @property
    def used_count(self) -> int:
        return self.slot_count - self.unused_count

    @property
    def free_count(self) -> int:
        """Slots that the limit still allows."""
        return max(0, self.limit - self.used_count)

    def free_slots(self) -> list[int]:
        return [*self._cold, *self._warm, *self._warming]

    def release_free(self) -> None:
        """Give the memory of all free slots back, also what a predecessor left of it. None may be
        warming."""
        self._cold += self._warm
        self._warm.clear()
        for slot in self._cold:
            self._release(slot)

    def has_memory(self, leave: int) -> bool:
        """Whether a slot can be written to without a wait for memory, and ``leave`` more then."""
        while len(self._warm) <= leave:
            if not self._cold or not self.warm_up(self._cold[-1]):
                return False
            self._warm.insert(0, self._cold.pop())  # the first is the first to be taken
        return True

    def begin_warming(self) -> int | None:
        """A slot for which another thread is to take memory, however long that takes; None when
        enough are warm, or too few would be left meanwhile. One at a time."""
        if self._warming or len(self._warm) >= min(self.kept_warm, self.free_count):
            return None
        if len(self._cold) + len(self._warm) <= WARM_MAX:
            return None
        slot = self._cold.pop()
        self._warming.add(slot)
        return slot

    def end_warming(self, slot: int, *, ok: bool) -> None:
        self._warming.remove(slot)
        (self._warm if ok else self._cold).append(slot)

    def take(self) -> int:
        """Raises IndexError when none is free."""
        return (self._warm or self._cold).pop()

    def _give_back(self, slot: int) -> None:
        self._warm.append(slot)
        self._cool(min(max(WARM_MAX, self.kept_warm), self.free_count))

    def give_back_untouched(self, slot: int) -> None:
        """A slot that may have no memory, as nothing came to be written to it; nothing pins it."""
        if not self._warming:  # else it would wait, as in _cool
            self._release(slot)
        self._cold.append(slot)

    def cool(self) -> None:
        """Give the memory of all free slots back but those that are kept warm."""
        self._cool(min(self.kept_warm, self.free_count))

    def _cool(self, most: int) -> None:
        if self._warming:
            return  # it would wait for that thread, which may wait for memory
        while len(self._warm) > most:
            slot = self._warm.pop(0)
            self._release(slot)
            self._cold.append(slot)


class TierSlots(Slots):
    """Slots of a tier: taken in ascending order, round and round, as flash likes it; a freed slot
    is trimmed in a batch, unless it is taken again first."""

    def __init__(self, slot_count: int, used: Iterable[int]) -> None:
        super().__init__(slot_count)
        self._state = bytearray(slot_count)
        for slot in used:
            self._state[slot] = _USED
        self.free_count = self._state.count(_FREE)
        self._next = 0
        self._untrimmed: set[int] = set()

    @property
    def untrimmed_count(self) -> int:
        return len(self._untrimmed)

    def used_slots(self) -> list[int]:
        return [slot for slot in range(self.slot_count) if self._state[slot] == _USED]

    def take(self) -> int:
        """Raises IndexError when none is free."""
        slot = self._state.find(_FREE, self._next)
        if slot < 0:
            slot = self._state.find(_FREE)
        if slot < 0:
            raise IndexError("no slot is free")
        self._state[slot] = _USED
        self.free_count -= 1
        self._next = slot + 1
        self._untrimmed.discard(slot)
        return slot

    def _give_back(self, slot: int) -> None:
        self._state[slot] = _FREE
        self.free_count += 1
        self._untrimmed.add(slot)

    def take_for_trim(self) -> list[int]:
        """All free slots that were not trimmed, ascending; not free until ``trimmed``."""
        slots = sorted(self._untrimmed)
        self._untrimmed.clear()
        for slot in slots:
            self._state[slot] = _USED
        self.free_count -= len(slots)
        return slots

    def trimmed(self, slots: Iterable[int]) -> None:
        """The trim has ended, well or not: the slots are free and need no trim."""
        for slot in slots:
            self._state[slot] = _FREE
            self.free_count += 1
