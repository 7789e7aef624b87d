"""Loop devices over the swap file.

Owns losetup and its undoing, and how the block layer treats the device. Never remembers a device:
which ones lie on a file is read from /sys/block, so that whoever comes later, after any failure,
finds them.
"""

import contextlib
import time
from pathlib import Path
from typing import Final

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
    _throttle_writes(device, throttle=False)
    return device


def _throttle_writes(device: str, *, throttle: bool) -> None:
    """The block layer holds background writes back while reads take long (wbt). On a swap device
    that holds reclaim back, which is what those who read wait for. The setting outlives the
    device, so that it is put back before the next user gets it."""
    # Not there: a kernel without it, or a queue to which it does not apply.
    with contextlib.suppress(OSError):
        Path(f"/sys/block/{Path(device).name}/queue/wbt_lat_usec").write_text(
            "-1" if throttle else "0"
        )


def attached_to(file: str) -> list[str]:
    """The loop devices on a file. Does not touch the file, which may be on a dead mount."""
    devices = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if backing.read_text().rstrip("\n") == file:
                devices.append(f"/dev/{backing.parts[3]}")
        except OSError:
            continue  # detached meanwhile
    return sorted(devices)


def detach(device: str, file: str) -> None:
    """Detach; waits until the kernel has let go of the file."""
    _throttle_writes(device, throttle=True)
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
