"""What a tier holds after a power cut, by what was written to it, against what vswapctl says of it.

Owns the truth: a segment or superblock is whole if every byte of it is as it was written; nothing
here trusts a checksum of the tier's. Never reads a medium but as bytes that it is given. Always
holds: what `judge` and `judge_on` return are differences, in words; an empty list means none.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from cut_log import FLUSH, MIB, TRIM, WRITE, Operation
from damage_kinds import records_in
from xxhash import xxh3_64_intdigest

from vswapfs.format.tier import SEGMENT_HEADER_BYTES, SUPERBLOCK_BYTES, SUPERBLOCK_COPY_OFFSET

COPIES: Final = (0, SUPERBLOCK_COPY_OFFSET)
BLOCK_BYTES: Final = 4096
NOT_A_TIER: Final = 6

_SEGMENT_MAGIC: Final = b"VseG"
_TAIL_BYTES: Final = 64 << 10
Data = bytes | bytearray | memoryview


class Label(NamedTuple):
    """What the tool reads of a superblock, by docs/on-disk-format.md."""

    slot_count: int
    generation: int
    uuid: bytes
    budget: bytes

    @classmethod
    def of(cls, data: Data) -> "Label":
        slots, generation, uuid = struct.unpack_from("<QQ16s", data, 16)
        return cls(slots, generation, uuid, bytes(data[88:112]))


class Version(NamedTuple):
    """A segment as it was written to a slot."""

    sequence: int
    fill_bytes: int
    uuid: bytes
    data: bytes
    records: dict[int, int]
    """Where each begins, and its length."""


@dataclass(slots=True)
class _Growing:
    """The parts of a segment that have been written so far; the kernel may split and sort them."""

    parts: list[tuple[int, Data]] = field(default_factory=list)

    def overlaps(self, start: int, length_bytes: int) -> bool:
        return any(at < start + length_bytes and start < at + len(d) for at, d in self.parts)

    def whole(self) -> Version | None:
        data = bytearray(MIB)
        for at, part in self.parts:
            data[at : at + len(part)] = part
        sequence, fill_bytes, uuid = struct.unpack_from("<Q8xI4x16s", data, 8)
        needed = -(-fill_bytes // BLOCK_BYTES) * BLOCK_BYTES
        if data[:4] != _SEGMENT_MAGIC or sum(len(part) for _at, part in self.parts) < needed:
            return None
        whole = bytes(data[:fill_bytes])
        return Version(sequence, fill_bytes, uuid, whole, dict(records_in(whole, fill_bytes)))


class Truth:
    """Every superblock and every segment that was written whole, whenever that was."""

    def __init__(self) -> None:
        self.superblocks: set[bytes] = set()
        self.versions: dict[bytes, Version] = {}
        """By the header."""
        self._growing: dict[int, _Growing] = {}

    def learn(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            if operation.kind in ("superblock", "copy"):
                self.superblocks.add(bytes(operation.data))
            elif operation.verb != FLUSH:
                for slot, start, part in _by_slot(operation):
                    self._grow(operation.verb, slot, start, part)

    def _grow(self, verb: str, slot: int, start: int, part: Data) -> None:
        growing = self._growing.get(slot)
        if verb == TRIM or growing is None or growing.overlaps(start, len(part)):
            growing = self._growing[slot] = _Growing()
        if verb == WRITE:
            growing.parts.append((start, part))
            if version := growing.whole():
                self.versions[version.data[:SEGMENT_HEADER_BYTES]] = version


def holds_at(operations: Sequence[Operation], *, before: bool) -> list[bool]:
    """Whether a superblock has to be whole, whatever is lost, after so many operations: from the
    first that was written and flushed until the tier is erased. ``before``: whether one was there
    before the first operation."""
    held = [before]
    last = ""
    for operation in operations:
        if operation.kind == "erase":
            held.append(False)
        else:
            held.append(held[-1] or (operation.verb == FLUSH and last == "superblock"))
        last = operation.kind
    return held


def _by_slot(operation: Operation) -> Iterator[tuple[int, int, Data]]:
    """Slot, where in it, and what. Requests for neighbouring slots may have become one."""
    at, end = operation.offset, operation.offset + operation.length_bytes
    while at < end:
        stop = min((at // MIB + 1) * MIB, end)
        if at >= MIB:
            data = operation.data[at - operation.offset : stop - operation.offset]
            yield at // MIB - 1, at % MIB, data
        at = stop


# -- log check and log dump ---------------------------------------------------------------------


class Said(NamedTuple):
    """What `log check --json` and `log dump --records --json` said; None: no JSON."""

    check_exit: int
    check: dict[str, Any] | None
    dump_exit: int
    dump: dict[str, Any] | None
    errors: str


def label_in(image: Data, truth: Truth) -> Label | None:
    """The superblock that holds."""
    whole = [bytes(image[at : at + SUPERBLOCK_BYTES]) for at in COPIES]
    labels = [Label.of(data) for data in whole if data in truth.superblocks]
    return max(labels, key=lambda label: label.generation, default=None)


def judge(
    image: Data, truth: Truth, said: Said, unknown: frozenset[int] = frozenset()
) -> list[str]:
    """Where vswapctl is wrong. ``unknown``: slots of which the truth may not know all, because a
    write was under way; there what is said must only be what the checksums say."""
    best = label_in(image, truth)
    if best is None:
        is_told = said.check_exit == said.dump_exit == NOT_A_TIER and "tier" in said.errors
        return [] if is_told else [f"no superblock is whole, but: {said}"[:400]]
    if said.check is None or said.dump is None:
        return [f"a superblock is whole, but: {said.check_exit} {said.errors}"]
    faults = [*_judge_superblocks(image, truth, best, said.check)]
    segments = {each["slot"]: each for each in said.dump["segments"]}
    counts = {"empty": 0, "segments": 0, "damaged": 0}
    for slot in range(best.slot_count):
        data = memoryview(image)[(slot + 1) * MIB : (slot + 2) * MIB]
        findings = [each for each in said.check["findings"] if each["slot"] == slot]
        look = _Slot(slot, data, best.uuid, segments.pop(slot, None), findings)
        faults += look.judge_unknown() if slot in unknown else look.judge(truth)
        counts["segments" if any(data[:SEGMENT_HEADER_BYTES]) else "empty"] += 1
        counts["damaged"] += bool(findings)
    faults += [f"slot {slot} is told and there is none" for slot in segments]
    told = {key: said.check[key] for key in counts}
    if told != counts:
        faults.append(f"counts {told}, not {counts}")
    if said.check_exit != bool(said.check["findings"]) or said.dump_exit:
        faults.append(f"exit codes {said.check_exit} and {said.dump_exit}")
    if said.dump["findings"] != [f for f in said.check["findings"] if f["slot"] is None]:
        faults.append("check and dump differ about the superblocks")
    return faults


def _judge_superblocks(
    image: Data, truth: Truth, best: Label, check: dict[str, Any]
) -> Iterator[str]:
    told = check["superblock"]
    if (told["uuid"], told["generation"]) != (best.uuid.hex(), best.generation):
        yield f"superblock {told['uuid']} {told['generation']}, not {best}"
    expected: dict[int, tuple[str, ...]] = {}
    for at in COPIES:
        data = bytes(image[at : at + SUPERBLOCK_BYTES])
        if data not in truth.superblocks:
            expected[at] = ("not a tier", "superblock: damaged")
        elif Label.of(data).uuid != best.uuid:
            expected[at] = ("superblock of another tier",)
    found = {f["byte_offset"]: f["reason"] for f in check["findings"] if f["slot"] is None}
    if found.keys() != expected.keys() or not all(
        found[at].startswith(words) for at, words in expected.items()
    ):
        yield f"superblocks: {found}, not {expected}"


class _Slot(NamedTuple):
    """What is in a slot, and what was said of it."""

    slot: int
    data: memoryview
    uuid: bytes
    told: dict[str, Any] | None
    """The segment in `log dump`."""
    findings: list[dict[str, Any]]

    def judge(self, truth: Truth) -> list[str]:
        header = bytes(self.data[:SEGMENT_HEADER_BYTES])
        if not any(header):
            return self._judge_empty()
        version = truth.versions.get(header)
        if version is None:
            return [self._fault("a header that was never written")]
        if self.told is None:
            return [self._fault("holds a segment and is not told")]
        whole = self.data[: version.fill_bytes] == version.data
        foreign = version.uuid != self.uuid
        faults = self._judge_state(whole=whole, foreign=foreign)
        if (self.told["sequence"], self.told["fill_bytes"]) != version[:2]:
            faults.append(self._fault(f"is not {version[:2]}"))
        return [*faults, *self._judge_records(version)]

    def judge_unknown(self) -> list[str]:
        header = bytes(self.data[:SEGMENT_HEADER_BYTES])
        if not any(header):
            return self._judge_empty()
        fill_bytes, uuid, records, checksum = struct.unpack_from("<I4x16sQQ", header, 24)
        whole = (
            header[:4] == _SEGMENT_MAGIC
            and xxh3_64_intdigest(header[:56]) == checksum
            and xxh3_64_intdigest(self.data[SEGMENT_HEADER_BYTES:fill_bytes]) == records
        )
        return self._judge_state(whole=whole, foreign=uuid != self.uuid)

    def _judge_empty(self) -> list[str]:
        wrong = self.told is not None or self.findings
        return [self._fault("is empty")] if wrong else []

    def _judge_state(self, *, whole: bool, foreign: bool) -> list[str]:
        reasons = [each["reason"] for each in self.findings]
        of_another = [reason for reason in reasons if reason.startswith("foreign: ")]
        state = "valid" if whole and not foreign else "damaged"
        faults = []
        if self.told is None or self.told["state"] != state:
            faults.append(self._fault(f"is {state}"))
        if len(of_another) != foreign:
            faults.append(self._fault(f"foreign is {foreign}"))
        if whole != (len(reasons) == len(of_another)):
            faults.append(self._fault("is whole" if whole else "is torn"))
        return faults

    def _judge_records(self, version: Version) -> Iterator[str]:
        assert self.told is not None
        start = (self.slot + 1) * MIB
        told = {each["byte_offset"] - start: each["error"] for each in self.told["records"]}
        before_the_tear = True
        for at, length_bytes in version.records.items():
            is_whole = self.data[at : at + length_bytes] == version.data[at : at + length_bytes]
            before_the_tear &= is_whole
            if at in told and is_whole != (told[at] is None):
                yield self._fault(f"the record at {at} is {'whole' if is_whole else 'torn'}")
            if before_the_tear and at not in told:
                yield self._fault(f"the record at {at} is whole and not told")
        for at in told.keys() - version.records.keys():
            if told[at] is None:
                yield self._fault(f"no record was written at {at}")

    def _fault(self, text: str) -> str:
        told = {key: self.told[key] for key in self.told if key != "records"} if self.told else None
        return f"slot {self.slot} {text}; told: {told}; {self.findings[:2]}"


# -- on -------------------------------------------------------------------------------------------


def may_take(image: Data, truth: Truth) -> bool:
    """Whether the instance that had the tier has to take it as it is: because it is its tier, or
    looks empty."""
    looks_empty = not any(image[:MIB]) and not any(image[-_TAIL_BYTES:])
    return looks_empty or label_in(image, truth) is not None


def judge_taken(image: Data, after: Data, truth: Truth) -> list[str]:
    """Whether ``after`` is how a tier has to look that was taken when it held ``image``."""
    labels = [Label.of(after[at : at + SUPERBLOCK_BYTES]) for at in COPIES]
    if labels[0] != labels[1]:
        return [f"after on, the superblocks differ: {labels}"]
    old = label_in(image, truth)
    faults = []
    if old and old.uuid == labels[0].uuid:
        faults.append("on did not give a new UUID")
    generation, budget = (old.generation + 1, old.budget) if old else (1, bytes(24))
    if (labels[0].generation, labels[0].budget) != (generation, budget):
        faults.append(f"after on: {labels[0]}, before it: {old}")
    return faults
