"""What the kernel says of a swap area: its figure in /proc/swaps, and which slots page tables name.

Owns the reading of /proc. Never stops a process, so the page tables of a busy machine are those of
the milliseconds in which they are read. A process that ends meanwhile is left out.

A page table entry of a page that is swapped out names a swap type (the number of the area) and an
offset (the slot). /proc/PID/pagemap shows both to root.
"""

import os
import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Final, NamedTuple

from vswapfs import procfs
from vswapfs.ctl import client, columns
from vswapfs.errors import HostError, InstanceError
from vswapfs.format import swaps
from vswapfs.format.message import AskStatus, Status
from vswapfs.format.swaps import SwapArea
from vswapfs.units import PAGE_BYTES

_PROC: Final = Path("/proc")
_ENTRY_BYTES: Final = 8
_ENTRIES_AT_ONCE: Final = 1 << 16
_IS_SWAPPED: Final = bytes(1 if number >> 6 == 1 else 0 for number in range(256))
"""By the highest byte of an entry, whose two highest bits are: not present, swapped."""
_TYPE_BITS: Final = 5
_TYPES: Final = bytes(number & (1 << _TYPE_BITS) - 1 for number in range(256))
"""By the lowest byte of an entry."""
_SLOT_MASK: Final = (1 << 50) - 1
_AREAS_MAX: Final = 23
"""Types from here on are no swap areas, but pages that move or are damaged (MAX_SWAPFILES)."""
_MAPPING: Final = re.compile(r"^(?:([0-9a-f]+)-([0-9a-f]+) |Swap: +([1-9]\d*) kB)", re.MULTILINE)
"""In smaps, the first line of a mapping; or the line that says that some of it is swapped out."""


class Process(NamedTuple):
    """A process with pages that are swapped out, to whatever area."""

    pid: int
    command: str
    cgroup: str
    """Its memory cgroup now; the pages may have been charged to another."""
    types: bytes
    """Swap type of each entry."""
    places: "array[int]"
    """Slot of each entry."""

    def slots(self, swap_type: int) -> "array[int]":
        """The slots of an area; one for each page table entry."""
        if self.types.count(swap_type) == len(self.types):
            return self.places
        return array("Q", compress(self.places, self.types.translate(columns.only(swap_type))))


def active_areas() -> dict[str, SwapArea]:
    """All swap areas by device, in the order of their types."""
    return swaps.parse(procfs.lines(_PROC / "swaps"))


def device_of(name: str) -> str:
    """The loop device that an instance swaps by.

    Raises InstanceError if it is not in use as swap, and what client.ask raises.
    """
    device = client.ask(name, AskStatus(), Status).loop_device
    if device is None or device not in active_areas():
        raise InstanceError(
            f"{name} is not in use as swap: /proc/swaps does not have it",
            remedy="vswapctl on makes an instance that is",
        )
    return device


def used_pages(device: str) -> int:
    """What the kernel counts as used; 0 if the area was switched off meanwhile."""
    area = active_areas().get(device)
    return area.used_bytes // PAGE_BYTES if area else 0


def swap_cached_bytes() -> int:
    """Pages of all areas that are in RAM and in swap."""
    for line in (_PROC / "meminfo").read_text().splitlines():
        if line.startswith("SwapCached:"):
            return int(line.split()[1]) * 1024
    return 0


def writes_in_flight(device: str) -> int:
    """Write requests that the block layer waits for."""
    text = (Path("/sys/block") / Path(device).name / "inflight").read_text()
    return int(text.split()[1])


def scan() -> list[Process]:
    """All processes with swapped pages. Raises HostError if this machine does not show slots."""
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and _swaps(entry):
            try:
                found.append(_read(entry))
            except (OSError, ValueError):
                continue  # it has ended
    return sorted(found)


def _swaps(process: Path) -> bool:
    try:
        text = procfs.text(process / "status")
    except (OSError, ValueError):
        return False
    _, _, rest = text.partition("VmSwap:")
    return rest[:20].split()[:1] not in ([], ["0"])  # a kernel thread has no such line


def _read(process: Path) -> Process:
    entries = array("Q")
    pagemap = os.open(process / "pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start, end in _swapped_mappings(process):
            for data in _parts(pagemap, start, end):
                entries.extend(compress(array("Q", data), data[7::8].translate(_IS_SWAPPED)))
    finally:
        os.close(pagemap)
    return Process(
        pid=int(process.name),
        command=procfs.printable(procfs.text(process / "comm").removesuffix("\n")),
        cgroup=procfs.printable(_cgroup(process)),
        types=entries.tobytes()[::_ENTRY_BYTES].translate(_TYPES),
        places=columns.field(entries, _TYPE_BITS, _SLOT_MASK),
    )


def _swapped_mappings(process: Path) -> Iterator[tuple[int, int]]:
    """Addresses [start, end) of the mappings of which pages are swapped out."""
    start = end = ""
    for found_start, found_end, swapped_kib in _MAPPING.findall(procfs.text(process / "smaps")):
        if swapped_kib:
            yield int(start, 16), int(end, 16)
        else:
            start, end = found_start, found_end


def _parts(pagemap: int, start: int, end: int) -> Iterator[bytes]:
    """The entries of a mapping, some at a time."""
    first, stop = start // PAGE_BYTES, end // PAGE_BYTES
    while first < stop:
        count = min(stop - first, _ENTRIES_AT_ONCE)
        data = os.pread(pagemap, count * _ENTRY_BYTES, first * _ENTRY_BYTES)
        if not data:
            return
        yield data
        first += count


def _cgroup(process: Path) -> str:
    """Version 1 has a line for each controller, version 2 the one without."""
    unified = "/"
    for line in procfs.lines(process / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return path
        if not controllers:
            unified = path
    return unified


def type_of(device: str, processes: Sequence[Process], held: bytes) -> int | None:
    """The swap type of an area; None if no page table names a slot that could be of it.

    ``held``: for each slot of the area 0 if we hold nothing there. The kernel lists areas in the
    order of their types, but does not tell the types, and after a swapoff there may be gaps. So if
    page tables name as many types as there are areas in use, it is the one in the same place.
    Otherwise (an area has only shared memory) it is the type of whose slots the largest share is
    held here.

    Raises HostError if this machine does not show slots.
    """
    seen: set[int] = set()
    for process in processes:
        seen.update(process.types)
    types = sorted(swap_type for swap_type in seen if swap_type < _AREAS_MAX)
    if types and not any(any(process.slots(each)) for process in processes for each in types):
        raise HostError(
            "read /proc/PID/pagemap", "it does not show slots", remedy="run with CAP_SYS_ADMIN"
        )
    in_use = [area.device for area in active_areas().values() if area.used_bytes]
    if device not in in_use:
        return None
    if len(in_use) == len(types):
        return types[in_use.index(device)]
    shares: dict[int, float] = {}
    for each in types:
        slots = [slot for process in processes for slot in process.slots(each)]
        if max(slots) < len(held):
            shares[each] = sum(1 for slot in slots if held[slot]) / len(slots)
    return max(shares, key=lambda swap_type: shares[swap_type], default=None)
