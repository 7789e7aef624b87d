"""What was aimed at, as data: how vswapfs is to stand beside its peers.

Owns the figures and the names of the cases. Never judges: the report prints the ratio and the bar
side by side.
"""

from typing import Final, NamedTuple

US, MS, S, PER_S, MB_PER_S, PERCENT = "us", "ms", "s", "1/s", "MB/s", "%"
BYTES, MIB = "bytes", "MiB"

DATA: Final = ("compressible", "incompressible")

FILL, VERIFY, TOUCH = "fill", "verify in order", "random touch"
ON_DISK: Final = "vswapfs on disk"
"""A peer: the same with hardly any RAM, so that its pages are on a tier on the swap file's disk."""

FILL_FF, FREE, SWAPOFF, IDLE = "0xff fill", "free at exit", "swapoff", "idle processor"


USEMEM_PROCESSES: Final = (1, 32)


def usemem_case(processes: int, step: str) -> str:
    """The name of a case of ``swap``."""
    return f"usemem, {processes} {'process' if processes == 1 else 'processes'}, {step}"


def device_case(data: str, size_kib: int, verb: str, depth: int) -> str:
    """The name of a case of ``device``."""
    return f"{size_kib}K {verb} d{depth} {data}"


class Bar(NamedTuple):
    """``ours`` over ``peer`` in a case; or the figure of ``ours`` itself if there is no peer."""

    case: str
    peer: str
    sense: str
    limit: float
    ours: str = "vswapfs"


DEVICE_BARS: Final = tuple(
    Bar(device_case(data, 4, verb, depth), peer, sense, limit)
    for data in DATA
    for verb in ("read", "write")
    for depth, peer, sense, limit in (
        (1, "qemu-storage-daemon", "<=", 0.5),
        (1, "nbdkit", "<=", 0.5),
        (1, "null", "<=", 1.35),
        (16, "qemu-storage-daemon", ">=", 1.3),
        (16, "nbdkit", ">=", 2.0),
    )
)

SWAP_BARS: Final = (
    Bar(TOUCH, "swap file", "<=", 0.6),
    Bar(TOUCH, "zram", "<=", 2.5),
    Bar(TOUCH, "swap file", "<=", 1.0, ours=ON_DISK),
    Bar(FILL, "zram", ">=", 1.0),
    Bar(FILL, "zswap", ">=", 1.2),
    Bar(VERIFY, "zram", ">=", 0.9),
    Bar(VERIFY, "swap file", ">=", 1.2),
    Bar(FILL_FF, "zram", ">=", 1.0),
    Bar(FREE, "zram", "<=", 1.2),
    Bar(SWAPOFF, "zram", "<=", 2.0),
    Bar(SWAPOFF, "swap file", "<=", 0.7),
    Bar(IDLE, "", "<", 0.1),
)
