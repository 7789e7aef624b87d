"""Under the power cuts: QEMU's log as it grows, and the media that a cut leaves."""

import random
import struct
from pathlib import Path

import pytest
from cut_log import FLUSH, MIB, TRIM, WRITE, Operation, QemuLog
from cut_media import ANY, HOWS, LOST, TORN, WHOLE, CutMedium, choose_cuts
from cut_truth import holds_at

SECTOR = 512


def write(sector: int, letters: str) -> Operation:
    data = b"".join(letter.encode() * SECTOR for letter in letters)
    return Operation(WRITE, sector * SECTOR, len(data), data)


def trim(sector: int, count: int) -> Operation:
    return Operation(TRIM, sector * SECTOR, count * SECTOR)


def letters(image: bytes | bytearray) -> str:
    return "".join(chr(image[at] or ord("0")) for at in range(0, len(image), SECTOR))


OPERATIONS = [write(0, "ab"), Operation(FLUSH), write(1, "cde"), trim(0, 1), write(3, "fg")]


@pytest.mark.parametrize(
    ("position", "how", "expected"),
    [
        (0, WHOLE, "00000"),
        (1, WHOLE, "ab000"),
        (1, LOST, "00000"),
        (2, LOST, "ab000"),
        (3, WHOLE, "acde0"),
        (4, WHOLE, "0cde0"),
        (5, WHOLE, "0cdfg"),
        (5, LOST, "ab000"),
    ],
)
def test_what_is_flushed_stays_and_the_rest_is_done_or_not(
    position: int, how: str, expected: str
) -> None:
    medium = CutMedium(bytes(5 * SECTOR), OPERATIONS)
    medium.advance(position)
    assert letters(medium.image(how, random.Random(1))) == expected


def test_a_trim_that_zeroes_nothing() -> None:
    medium = CutMedium(bytes(5 * SECTOR), OPERATIONS, trims_zero=False)
    medium.advance(5)
    assert letters(medium.image(WHOLE, random.Random(1))) == "acdfg"


def test_a_torn_write_is_the_last_one() -> None:
    medium = CutMedium(bytes(5 * SECTOR), OPERATIONS)
    medium.advance(5)
    found = {letters(medium.image(TORN, random.Random(seed))) for seed in range(100)}
    assert found == {"0cdfg", "0cdf0", "0cdeg", "0cde0"}


def test_any_part_of_what_was_not_flushed() -> None:
    medium = CutMedium(bytes(5 * SECTOR), OPERATIONS)
    medium.advance(5)
    found = {letters(medium.image(ANY, random.Random(seed))) for seed in range(2000)}
    # By sector: done or not; of two writes to one sector the last that was done.
    possible = {
        f"{a}{b}{c}{d}{e}" for a in "a0" for b in "bc" for c in "0d" for d in "0ef" for e in "0g"
    }
    assert found <= possible
    assert len(found) > 40  # of 48


def test_cuts_are_behind_each_kind_and_of_each_how() -> None:
    cuts = choose_cuts(OPERATIONS, 24, random.Random(1))
    assert cuts == sorted(cuts)
    assert {OPERATIONS[cut.position - 1].kind for cut in cuts} == {each.kind for each in OPERATIONS}
    assert {cut.how for cut in cuts} == set(HOWS)
    assert choose_cuts([], 24, random.Random(1)) == []


def test_a_superblock_has_to_be_there_from_its_flush_until_it_is_erased() -> None:
    superblock = Operation(WRITE, 0, 4096, b"vswapfs\0".ljust(4096, b"\0"))
    erase = Operation(WRITE, 0, 4096, bytes(4096))
    operations = [superblock, Operation(FLUSH), write(4096, "x"), erase, Operation(FLUSH)]
    assert holds_at(operations, before=False) == [False, False, True, True, False, False]
    assert holds_at(operations[:2], before=True) == [True, True, True]


def test_a_log_of_qemu_is_read_as_it_grows(tmp_path: Path) -> None:
    def entry(operation: Operation, flags: int) -> bytes:
        sectors = operation.length_bytes // SECTOR
        head = struct.pack("<QQQQ", operation.offset // SECTOR, sectors, flags, 0)
        return head.ljust(SECTOR, b"\0") + bytes(operation.data)

    path = tmp_path / "log"
    path.write_bytes(b"")
    log = QemuLog(path)
    assert log.read_on() == []
    first = [write(2 * MIB // SECTOR, "ab" * 20), Operation(FLUSH), trim(0, 64), trim(4096, 8)]
    flags = {WRITE: 0, FLUSH: 1, TRIM: 4}
    path.write_bytes(bytes(SECTOR) + b"".join(entry(each, flags[each.verb]) for each in first))
    assert log.read_on() == first
    assert [each.kind for each in log.operations] == ["segment", "flush", "discard", "trim"]
    assert log.read_on() == []
    # One that is not there as a whole yet, and then is.
    last = entry(write(0, "xyz"), 0)
    with path.open("ab") as file:
        file.write(last[:-1])
        file.flush()
        assert log.read_on() == []
        file.write(last[-1:])
    assert log.read_on() == [write(0, "xyz")]
    # Behind a gap, which a kill leaves, nothing is believed.
    with path.open("ab") as file:
        file.write(bytes(SECTOR) + last)
    assert log.read_on() == []
    assert log.operations == [*first, write(0, "xyz")]
