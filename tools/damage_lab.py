"""Damage experiments: a store with a tier whose every page is known, and cases of damage to it.

Owns the base image and the judging of a case: each page of the segments hit is read back by the
daemon's own reader (daemon/record_reader.py, core/verify.py) and compared with the truth. Never
samples pages. Always holds: after a case the medium is what it was before.
"""

import random
import zlib
from dataclasses import dataclass, field, fields, replace
from types import SimpleNamespace
from typing import Final, NamedTuple, cast

from damage_kinds import (
    SEGMENT_BYTES,
    SUPERBLOCK_SLOT,
    Contents,
    Damage,
    Image,
    damaged_states,
    draw,
    place_bytes,
    records_in,
    superblock_contents,
)
from workload import PageContents

from vswapfs.backing.api import BLOCK_BYTES, Backing
from vswapfs.backing.memory import MemoryBacking
from vswapfs.backing.scratch import scratch
from vswapfs.core.buffers import Buffers, Geometry
from vswapfs.core.homes import RecordRead
from vswapfs.core.segment import resident_bytes
from vswapfs.core.store import Store
from vswapfs.daemon.medium import write_segment, write_superblock
from vswapfs.daemon.record_reader import RecordReader
from vswapfs.daemon.scrub import Scrubber
from vswapfs.daemon.tier import Tier
from vswapfs.daemon.tiering import Tiering
from vswapfs.errors import LostPageError, TierFormatError
from vswapfs.format.codec import DecodeError, decode
from vswapfs.format.record import CODEC_SHIFT, HEADER, HEADER_BYTES, binding
from vswapfs.format.tier import (
    SUPERBLOCK_BYTES,
    SUPERBLOCK_COPY_OFFSET,
    SegmentHeader,
    Superblock,
    choose,
    is_empty,
    unpack_segment_header,
)
from vswapfs.format.tier_walk import walk_segment
from vswapfs.fuse.lane import Lane
from vswapfs.fuse.lost import LostPages
from vswapfs.units import PAGE_BYTES

WRITE_EVERY_STORES: Final = 64
STATES_KEPT: Final = 4
SUPERBLOCK_GENERATIONS: Final = 5


class DamageToolError(AssertionError):
    """The experiment itself is wrong: nothing that it counted can be believed."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is on the tier, and how it came there."""

    pages: int
    ram_slots: int
    tier_slots: int
    generations: int
    same_order: bool = False
    """Rewrite incompressible pages in the same order into the same slots: every record lies where
    an earlier one of its page was."""

    @property
    def tier_bytes(self) -> int:
        return (self.tier_slots + 1) * SEGMENT_BYTES


MIXED: Final = Recipe(pages=5000, ram_slots=16, tier_slots=24, generations=4)
SAME_ORDER: Final = Recipe(255 * 8, ram_slots=16, tier_slots=16, generations=3, same_order=True)


class Pages:
    """What each page holds, by number and version: text, random and tight pages."""

    def __init__(self, seed: int, recipe: Recipe) -> None:
        self._seed = seed
        mix = {"random": 1} if recipe.same_order else {"text": 7, "random": 3}
        self._contents = PageContents(seed, mix)
        self._with_tight = not recipe.same_order

    def page(self, number: int, version: int) -> bytes:
        if self._with_tight and number % 8 == 0:
            noise = random.Random(f"{self._seed}/{number}/{version}").randbytes(9)
            return noise + bytes(PAGE_BYTES - len(noise))
        return self._contents.page(number, version)


@dataclass(slots=True)
class Tally:
    """What became of the cases of one kind."""

    cases: int = 0
    affected: int = 0
    """Pages of whose record a byte was changed."""
    detected: int = 0
    undetected: int = 0
    """Wrong bytes returned."""
    harmless: int = 0
    """The page came back right nevertheless."""
    crc32_undetected: int = 0
    none_undetected: int = 0
    scrub_cases: int = 0
    """Cases of which scrub told something."""
    scrub_missed_cases: int = 0
    """Cases in which a page was lost and scrub told nothing."""
    log_check_cases: int = 0

    def add(self, other: "Tally") -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


class Live(NamedTuple):
    """A page on the tier."""

    plan: RecordRead
    data: bytes


@dataclass(slots=True)
class _Written:
    segment: int
    live: list[Live] = field(default_factory=list)


class Lab:
    """The base image, on a medium, and the cases done to it."""

    def __init__(self, recipe: Recipe, seed: int, backing: Backing | None = None) -> None:
        self.recipe = recipe
        self.seed = seed
        self.backing = backing or MemoryBacking(recipe.tier_bytes)
        self.geometry = Geometry(
            recipe.pages, recipe.ram_slots, SEGMENT_BYTES, recipe.ram_slots + recipe.tier_slots
        )
        self.store = Store(self.geometry, make_buffers(self.geometry))
        self.superblock = Superblock(
            uuid=random.Random(f"uuid/{seed}").randbytes(16),
            name="damage",
            segment_bytes=SEGMENT_BYTES,
            slot_count=recipe.tier_slots,
            generation=1,
            created_unix_s=1_750_000_000,
        )
        number = self.store.segments.add_tier(recipe.tier_slots)
        self.tier = Tier(number, "tier", self.backing, self.superblock)
        self._reader = RecordReader({number: self.tier}, SEGMENT_BYTES)
        lane = SimpleNamespace(lost=LostPages(self.store))
        self._scrubber = Scrubber(self.store, cast(Lane, lane), cast(Tiering, None))
        self._memory = scratch(SEGMENT_BYTES)
        self._pages = Pages(seed, recipe)
        self._versions = [-1] * recipe.pages
        self._states: dict[int, list[bytes]] = {}
        self._fill()
        self._settle()

    # -- the base image ----------------------------------------------------------------------

    def _fill(self) -> None:
        """Store every page several times, so that slots are used again and records are dead."""
        rng = random.Random(f"order/{self.seed}")
        recipe = self.recipe
        superblocks: list[bytes] = []
        for generation in range(SUPERBLOCK_GENERATIONS):
            self.superblock = replace(self.superblock, generation=generation + 1)
            write_superblock(self.backing, self.superblock)
            superblocks.insert(0, self._read(SUPERBLOCK_SLOT))
        self.tier.superblock = self.superblock
        self._states[SUPERBLOCK_SLOT] = superblocks
        for _ in range(recipe.generations):
            order = list(range(recipe.pages))
            if not recipe.same_order:
                # Neighbours stay near each other, as with the kernel; one page in ten comes late.
                order.sort(key=lambda page: page + rng.randrange(64) + 3000 * (rng.random() < 0.1))
            self._store(order)
        if not recipe.same_order:
            self._store(rng.sample(range(recipe.pages), recipe.pages // 10))
            for page in rng.sample(range(recipe.pages), recipe.pages // 20):
                self.store.discard(page, 1)
        for head in self.store.heads:
            head.close()
        self._write_out()

    def _store(self, order: list[int]) -> None:
        for turn, page in enumerate(order):
            self._versions[page] += 1
            self.store.store(page, self._pages.page(page, self._versions[page]))
            if turn % WRITE_EVERY_STORES == 0:
                self._write_out()

    def _write_out(self) -> None:
        """All sealed segments, by the steps of daemon/tiering.py."""
        homes, pool = self.store.homes, self.store.pool
        for segment in homes.candidates():
            plan = homes.plan_write(segment)
            if plan is None:
                return
            header = SegmentHeader(
                plan.sequence, plan.slot, plan.fill_bytes, self.superblock.uuid, 0
            )
            states = self._states.setdefault(plan.slot, [self._read(plan.slot)])
            buffer = self._memory[: plan.length_bytes]
            buffer[:] = pool[plan.ram_start : plan.ram_start + plan.length_bytes]
            write_segment(self.backing, place_bytes(plan.slot), buffer, header)
            states.insert(0, self._read(plan.slot))
            del states[STATES_KEPT:]
            if not homes.end_write(plan, ok=True):
                raise DamageToolError(f"segment {segment} did not move to the tier")

    def _settle(self) -> None:
        """What is where now, and whether all of it comes back."""
        self.backing.flush()
        segments, homes = self.store.segments, self.store.homes
        on_tier = {segments.slot_of(n): n for n in homes.on_tier(self.tier.number)}
        slots = [SUPERBLOCK_SLOT, *on_tier]
        self.image: Image = {
            slot: superblock_contents(states) if slot == SUPERBLOCK_SLOT else Contents.of(states)
            for slot, states in self._states.items()
            if slot in slots
        }
        self._written = {slot: _Written(segment) for slot, segment in on_tier.items()}
        for plan in self.store.missing(0, self.recipe.pages):
            data = self._pages.page(plan.page, self._versions[plan.page])
            self._written[plan.slot].live.append(Live(plan, data))
        twins = {
            slot: [state if is_empty(state) else with_crc32(state) for state in contents.states]
            for slot, contents in self.image.items()
            if slot != SUPERBLOCK_SLOT
        }
        self.twin: Image = {
            slot: replace(contents, states=twins.get(slot, contents.states))
            for slot, contents in self.image.items()
        }
        for slot, written in self._written.items():
            self._load(slot, Tally(), self.image[slot].states[0], None)
            for plan, data in written.live:
                twin = self.twin[slot].states[0][plan.offset_bytes :][: plan.length_bytes]
                if crc32_returns(plan, twin) != data:
                    raise DamageToolError(f"page {plan.page} does not come back under crc32")
            if self._scrub(slot) or self._log_check({slot: bytearray(self._read(slot))}):
                raise DamageToolError(f"slot {slot} is damaged before anything was done to it")

    def _read(self, slot: int) -> bytes:
        self.backing.read_into(place_bytes(slot), self._memory)
        return self._memory.tobytes()

    # -- cases -------------------------------------------------------------------------------

    def draw(self, kind: str, index: int) -> Damage:
        return draw(kind, self.image, random.Random(f"{self.seed}/{kind}/{index}"))

    def case(self, kind: str, index: int) -> Tally:
        """Do one damage, see who notices, and undo it."""
        damage = self.draw(kind, index)
        tally = Tally(cases=1)
        found = damaged_states(damage, self.image)
        twins = damaged_states(damage, self.twin)
        self.put(damage, found)
        try:
            for slot, state in found.items():
                if slot != SUPERBLOCK_SLOT:
                    self._load(slot, tally, state, twins[slot])
                    tally.scrub_cases |= self._scrub(slot)
            tally.scrub_missed_cases += tally.detected > 0 and not tally.scrub_cases
            tally.log_check_cases += self._log_check(found)
        finally:
            self.put(damage, {slot: bytearray(self.image[slot].states[0]) for slot in found})
        return tally

    def put(self, damage: Damage, states: dict[int, bytearray]) -> None:
        """Write the blocks that the damage touches, as they are in ``states``."""
        for operation in damage.operations:
            start = operation.offset // BLOCK_BYTES * BLOCK_BYTES
            end = -(-(operation.offset + operation.length_bytes) // BLOCK_BYTES) * BLOCK_BYTES
            buffer = self._memory[: end - start]
            buffer[:] = memoryview(states[operation.slot])[start:end]
            self.backing.write(place_bytes(operation.slot, start), buffer)
        if isinstance(self.backing, MemoryBacking):
            self.backing.flush()  # or it keeps every state since the last one

    def _load(
        self, slot: int, tally: Tally, state: bytes | bytearray, twin: bytearray | None
    ) -> None:
        """Every page of the slot through the reader; ``state`` is what lies there now."""
        live = self._written[slot].live
        fetched = self._reader.read([each.plan for each in live])
        before = memoryview(self.image[slot].states[0])
        after = memoryview(state)
        for plan, data in live:
            start, end = plan.offset_bytes, plan.offset_bytes + plan.length_bytes
            got = fetched[plan.version]
            if before[start:end] == after[start:end]:
                if got != data:
                    raise DamageToolError(f"page {plan.page} was not touched and gave {got!r:.80}")
                continue
            tally.affected += 1
            if isinstance(got, LostPageError):
                tally.detected += 1
            elif got == data:
                tally.harmless += 1
            else:
                tally.undetected += 1
            tally.none_undetected += none_returns(after[start:end]) not in (None, data)
            assert twin is not None
            by_crc32 = crc32_returns(plan, memoryview(twin)[start:end])
            tally.crc32_undetected += by_crc32 not in (None, data)

    def _scrub(self, slot: int) -> bool:
        """Whether daemon/scrub.py has a finding."""
        segment = self._written[slot].segment
        used_bytes = resident_bytes(self.store.segments.fill_bytes(segment))
        found, reason = self._scrubber._read(self.tier, slot, used_bytes, 0)
        return bool(self._scrubber._judge(self.tier, segment, slot, found, reason))

    def _log_check(self, states: dict[int, bytearray]) -> bool:
        """Whether `vswapctl log check` has a finding, as far as these slots go."""
        first = memoryview(states.get(SUPERBLOCK_SLOT, self.image[SUPERBLOCK_SLOT].states[0]))
        copy = first[SUPERBLOCK_COPY_OFFSET:][:SUPERBLOCK_BYTES]
        try:
            superblock, findings = choose(first[:SUPERBLOCK_BYTES], copy)
        except TierFormatError:
            return True
        return bool(findings) or any(
            walk_segment(memoryview(state), superblock, slot).findings
            for slot, state in states.items()
            if slot != SUPERBLOCK_SLOT
        )


class _Region:
    """Memory for a buffer of the store."""

    def __init__(self, size_bytes: int) -> None:
        self._view = scratch(size_bytes)

    @property
    def view(self) -> memoryview:
        return self._view

    def release(self, start: int, stop: int) -> None:
        self._view[start:stop] = bytes(stop - start)

    def extents(self) -> list[tuple[int, int]]:
        return [(0, len(self._view))]


def make_buffers(geometry: Geometry) -> Buffers:
    return Buffers(**{name: _Region(size) for name, size in geometry.sizes_bytes().items()})


# -- other checksums --------------------------------------------------------------------------


def with_crc32(segment: bytes) -> bytes:
    """The same segment with crc32 in place of xxh3: four bytes, and four that nobody compares."""
    twin = bytearray(segment)
    header = unpack_segment_header(segment)
    for at, length_bytes in records_in(segment, header.fill_bytes):
        _checksum, page, tag = HEADER.unpack_from(segment, at)
        payload = memoryview(segment)[at + HEADER_BYTES : at + length_bytes]
        bound = bound_crc32(decode(tag >> CODEC_SHIFT, payload), header.sequence, page)
        HEADER.pack_into(twin, at, bound, page, tag)
    return bytes(twin)


def bound_crc32(data: bytes, sequence: int, page: int) -> int:
    return (zlib.crc32(data) ^ binding(sequence, page)) & 0xFFFF_FFFF


def crc32_returns(plan: RecordRead, record: memoryview | bytes) -> bytes | None:
    """What core/verify.py would let out with crc32; None if it noticed something."""
    bound, owner, _tag = HEADER.unpack_from(record)
    data = none_returns(record)
    if data is None or owner != plan.page:
        return None
    return data if bound_crc32(data, plan.sequence, plan.page) == bound & 0xFFFF_FFFF else None


def none_returns(record: memoryview | bytes) -> bytes | None:
    """What would be let out if only the decoder and the page's length were looked at."""
    _checksum, _owner, tag = HEADER.unpack_from(record)
    try:
        return decode(tag >> CODEC_SHIFT, memoryview(record)[HEADER_BYTES:])
    except DecodeError:
        return None
