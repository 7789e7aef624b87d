"""Loop devices over the swap file.

Owns losetup and its undoing, and how the block layer treats the device. Never remembers a device:
which ones lie on a file is read from /sys/block, so that whoever comes later, after any failure,
finds them.
"""

import contextlib
import time
from pathlib import Path
from typing import Final

from vswapfs import procfs
from vswapfs.errors import HostError
from vswapfs.host.command import run

_DETACH_WAIT_S: Final = 5.0


def attach(file: str) -> str:
    """Attach a free loop device with direct I/O and 4096-byte sectors; returns /dev/loopN."""
    step = "attach a loop device"
    device = run(
        step,
        "losetup", "--find", "--show", "--direct-io=on", "--sector-size", "4096", file,
        remedy="modprobe loop; losetup --list shows which are in use",
    )  # fmt: skip
    if not device.startswith("/dev/"):
        raise HostError(step, f"losetup printed {device!r}")
    _set_queue(device, for_swap=True)
    return device


_QUEUE: Final = {
    # Of a kernel of today's, and ours. How much may be in front of a page that someone waits for:
    # 128 MiB before, 8 MiB now.
    "nr_requests": ("128", "32"),
    "max_sectors_kb": ("1280", "256"),
    # Background writes are held back while reads take long. Here the writer is who frees memory.
    "wbt_lat_usec": ("-1", "0"),
}


def _set_queue(device: str, *, for_swap: bool) -> None:
    """How the block layer treats the device. That outlives the device, so it is put back."""
    for name, values in _QUEUE.items():
        # A kernel without the setting, or whose queue does not have it.
        with contextlib.suppress(OSError):
            Path(f"/sys/block/{Path(device).name}/queue/{name}").write_text(values[for_swap])


def attached_to(file: str) -> list[str]:
    """The loop devices on a file. Does not touch the file, which may be on a dead mount."""
    devices = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if procfs.lines(backing) == [file]:
                devices.append(f"/dev/{backing.parts[3]}")
        except OSError:
            continue  # detached meanwhile
    return sorted(devices)


def detach(device: str, file: str) -> None:
    """Detach; waits until the kernel has let go of the file."""
    _set_queue(device, for_swap=False)
    run(f"detach {device}", "losetup", "--detach", device)
    deadline = time.monotonic() + _DETACH_WAIT_S
    while device in attached_to(file):
        # Detaching a device that someone has open is put off until he closes it.
        if time.monotonic() > deadline:
            raise HostError(
                f"detach {device}",
                "still in use",
                remedy=f"see who has it open: fuser -v {device}; lsblk {device}",
            )
        time.sleep(0.02)
