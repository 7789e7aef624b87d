"""The steps of a medium, without a disk."""

import pytest

from vswapfs.backing.memory import MemoryBacking
from vswapfs.daemon import medium
from vswapfs.format.tier import CIPHER_NONE, SUPERBLOCK_COPY_OFFSET, Superblock
from vswapfs.units import PAGE_BYTES


def test_a_superblock_is_written_without_new_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The write budget is charged while segments are written because memory is short. To map a
    page is to wait for some, with the interpreter in one's hands."""
    monkeypatch.setattr(medium, "scratch", None)
    backing, block = MemoryBacking(8 << 20), memoryview(bytearray(PAGE_BYTES))
    superblock = Superblock(bytes(16), "test", 1 << 20, 7, 1, 1, cipher=CIPHER_NONE)
    medium.write_superblock(backing, superblock)
    for offset in (0, SUPERBLOCK_COPY_OFFSET):
        backing.read_into(offset, block)
        assert block == superblock.pack()
