"""Which memory is asked for ahead of swapoff."""

from vswapfs.host.swapin import _swapped_ranges

SMAPS = """\
55d0c0000000-55d0c0100000 rw-p 00000000 00:00 0                          [heap]
Rss:                 100 kB
Swap:                924 kB
SwapPss:             924 kB
7f0000000000-7f0000200000 rw-p 00000000 fe:00 123                        /usr/lib/libc.so.6
Swap:                 12 kB
7f0000400000-7f0000800000 rw-s 00000000 00:01 77                         /dev/zero (deleted)
Swap:               4096 kB
7f0001000000-7f0003000000 rw-p 00000000 00:00 0
Swap:                  0 kB
7f0004000000-7f0006000000 r--p 00000000 00:00 0
VmFlags: rd mr mw me ac
Swap:                  8 kB
"""


def test_only_anonymous_memory_of_which_something_is_swapped() -> None:
    """The advice would read files; memory that is shared is found by swapoff in another way."""
    assert list(_swapped_ranges(SMAPS.split("\n"))) == [
        (0x55D0C0000000, 0x55D0C0100000),
        (0x7F0004000000, 0x7F0006000000),
    ]


def test_nothing_is_nothing() -> None:
    assert list(_swapped_ranges([])) == []
