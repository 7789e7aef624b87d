"""Debian packages, downloaded and unpacked; never installed. Owns how apt is asked."""

import os
from pathlib import Path
from typing import Final

from guest.errors import host_command

_APT_TIMEOUT_S: Final = 300
_UNPACK_TIMEOUT_S: Final = 120


def names(prefix: str) -> list[str]:
    """The packages that apt knows; its lists are fetched if it knows none."""
    found = host_command("apt-cache", "pkgnames", prefix, timeout_s=_APT_TIMEOUT_S).split()
    if not found and os.geteuid() == 0:
        host_command("apt-get", "update", "-qq", timeout_s=_APT_TIMEOUT_S)
        found = host_command("apt-cache", "pkgnames", prefix, timeout_s=_APT_TIMEOUT_S).split()
    return found


def unpack(package: str, work: Path) -> Path:
    """Download a package and unpack it under an empty directory; returns where its files are."""
    host_command(
        "sh", "-c", 'cd "$1" && apt-get download -qq -o APT::Sandbox::User=root "$2"', "sh",
        work, package, timeout_s=_APT_TIMEOUT_S,
    )  # fmt: skip
    (file,) = work.glob("*.deb")
    tree = work / "tree"
    host_command("dpkg", "-x", file, tree, timeout_s=_UNPACK_TIMEOUT_S)
    file.unlink()
    return tree
