"""Resumes: verifies an image in full, marks it used, and becomes the machine that it is of.

Owns the order of the steps. Always holds: the image that it refuses, or takes, is marked before
anything else happens, so that it is never resumed twice, nor after the machine has gone on without
it. Runs in an initramfs: before any file system is mounted.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from vswapfs import procfs
from vswapfs.backing.api import Backing
from vswapfs.errors import HostError, ImageFormatError
from vswapfs.format.image import State, Step
from vswapfs.hibernate import area, tiers
from vswapfs.hibernate.reader import ImageReader, NoImageError, mark_refused
from vswapfs.hibernate.snapshot import Snapshot, page_views
from vswapfs.units import format_size

Show = Callable[[str], None]
MOUNTINFO: Final = Path("/proc/self/mountinfo")


def kernel_name() -> str:
    """What two kernels must have in common for one to take the other's image."""
    name = os.uname()
    return f"{name.release} {name.version} {name.machine}"


def resume(path: str, show: Show) -> None:
    """Returns never; raises NoImageError when there is nothing to do, ImageFormatError when there
    is no image any more, and HostError when there may be one."""
    with area.opened(path) as backing:
        reader = verified(backing, kernel_name(), mounted_for_writing(), show)
        show("restore")
        try:
            with Snapshot.opened(to_restore=True) as snapshot:
                for chunk in reader.chunks():
                    snapshot.write(page_views(memoryview(chunk)))
                snapshot.freeze()
                snapshot.restore()
        except HostError as error:
            raise ImageFormatError(f"{error.message}; the image is used up") from None


def mounted_for_writing(mountinfo: Path = MOUNTINFO) -> list[str]:
    """Devices with a file system that may have been written since the snapshot."""
    found = []
    for line in procfs.lines(mountinfo):
        _kind, device, options = line.partition(" - ")[2].split(" ", 2)
        if device.startswith("/dev/") and "rw" in options.split(","):
            found.append(device)
    return found


def verified(backing: Backing, kernel: str, mounted: Sequence[str], show: Show) -> ImageReader:
    """An image of which every checksum holds, marked used. Raises NoImageError, and
    ImageFormatError for one that is refused: it is marked, too."""
    try:
        reader = ImageReader(backing)
        reader.check_state(kernel)
        if mounted:
            raise ImageFormatError(
                f"{mounted[0]} is mounted for writing: the machine of the image knows it as it was "
                "before, and would destroy it",
                remedy="resume before file systems are mounted (docs/hibernation.md)",
            )
        begin = time.monotonic_ns()
        show(f"verify an image of {format_size(reader.header.image_bytes)}")
        tiers.compare(reader.verify())
        times_us = list(reader.header.times_us)
        times_us[Step.VERIFY] = (time.monotonic_ns() - begin) // 1000
    except NoImageError:
        raise
    except ImageFormatError:
        mark_refused(backing, int(time.time()))
        raise
    show(f"all is as it was written ({times_us[Step.VERIFY] / 1e6:.2f} s)")
    reader.mark(State.USED, tuple(times_us))
    return reader
