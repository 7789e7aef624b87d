"""What there is of an instance in the kernel: its mount and its loop devices.

Owns the search for them, and the link that says which device is the instance's. Keeps no list of
what was set up: the link only tells two files apart that the kernel shows by the same path. The
mount was taken away (umount --lazy), the device kept its file, and the path lost its beginning; or
another mount namespace with a /run of its own has an instance of the same name.
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
    mountpoint, connection = mount.find(name) or (None, None)
    file = f"{mountpoint or ''}/{instance.SWAP_FILE}"
    devices, mine = loop.attached_to(file), None
    with contextlib.suppress(OSError):
        mine = str(Path(instance.device_link(name)).readlink())
    if mountpoint is None or mine in devices:
        devices = [device for device in devices if device == mine]
    return Remains(mountpoint, connection, file, devices)


def keep_device(name: str, device: str) -> None:
    """The device is the instance's, from now on. Where there is no room for the link, it is missed
    only where one is needed to tell."""
    with contextlib.suppress(OSError):
        forget_device(name)  # of one that was killed
        Path(instance.device_link(name)).symlink_to(device)


def forget_device(name: str) -> None:
    """It has been detached."""
    Path(instance.device_link(name)).unlink(missing_ok=True)
