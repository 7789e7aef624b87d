"""What there is of an instance in the kernel: its mount and its loop devices.

Owns the search for them, and the link that says which device is the instance's. Keeps no list of
what was set up: the link only tells two files apart that the kernel shows by the same path, when
the mount was taken away (umount --lazy), the device kept its file, and the path lost its beginning.
"""

import contextlib
from pathlib import Path
from typing import NamedTuple

from vswapfs.format import instance
from vswapfs.fuse import mount
from vswapfs.host import loop


class Remains(NamedTuple):
    """``mountpoint`` and ``connection``: None if it is not mounted, or not any more."""

    mountpoint: str | None
    connection: int | None
    file: str
    """As the kernel shows it."""
    devices: list[str]
    """On the file."""

    @property
    def is_there(self) -> bool:
        return self.mountpoint is not None or bool(self.devices)


def find(name: str) -> Remains:
    if found := mount.find(name):
        mountpoint, connection = found
        file = f"{mountpoint}/{instance.SWAP_FILE}"
        return Remains(mountpoint, connection, file, loop.attached_to(file))
    file, mine = f"/{instance.SWAP_FILE}", None
    with contextlib.suppress(OSError):
        mine = str(Path(instance.device_link(name)).readlink())
    return Remains(None, None, file, [each for each in loop.attached_to(file) if each == mine])


def keep_device(name: str, device: str) -> None:
    """The device is the instance's, from now on. Where there is no room for the link, it is missed
    only once the mount is taken away."""
    with contextlib.suppress(OSError):
        forget_device(name)  # of one that was killed
        Path(instance.device_link(name)).symlink_to(device)


def forget_device(name: str) -> None:
    """It has been detached."""
    Path(instance.device_link(name)).unlink(missing_ok=True)
