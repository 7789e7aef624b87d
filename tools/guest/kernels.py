"""Debian's kernels, out of their packages into the cache; nothing is installed on the host.

Owns `.vm/kernels`: for each release its kernel, its modules, and an image of these for the guest.
Never replaces a kernel that is there, so that a version means the same one until the cache is
removed. Always holds: a directory with a release's name is complete.
"""

import platform
import re
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from guest import debian
from guest.errors import GuestUnavailableError, host_command
from guest.image import CACHE, locked_cache, make_image

PACKAGE = re.compile(r"linux-image-(\d+\.\d+\.\S*cloud-amd64)")
"""The kernels for virtual machines: a third of the size, and all that is needed is in them."""

DEPMOD_TIMEOUT_S = 120


class Kernel(NamedTuple):
    release: str
    directory: Path

    @property
    def vmlinuz(self) -> Path:
        return self.directory / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return self.directory / "usr/lib/modules" / self.release

    @property
    def modules_image(self) -> Path:
        return self.directory / "modules.ext4"


def _age(release: str) -> list[int]:
    """To sort releases by: 6.1.0-9 is older than 6.1.0-10."""
    return [int(number) for number in re.findall(r"\d+", release)]


def _is_of(release: str, version: str) -> bool:
    """6.1 is asked for: 6.1.0-56-cloud-amd64 is one, 6.12.117+deb12-cloud-amd64 is not."""
    return release == version or release.startswith((f"{version}.", f"{version}-"))


def cached() -> list[Kernel]:
    """Those unpacked already, newest first."""
    directories = (CACHE / "kernels").glob("*-cloud-amd64")
    return [Kernel(d.name, d) for d in sorted(directories, key=lambda d: _age(d.name))[::-1]]


def offered() -> list[str]:
    """The releases that apt knows packages of, newest first."""
    names = debian.names("linux-image-")
    found = {match[1] for name in names if (match := PACKAGE.fullmatch(name))}
    # Names without a number of their own are packages that only depend on the newest one.
    return sorted((r for r in found if len(_age(r)) > 3 or "+" in r), key=_age, reverse=True)


def get(version: str) -> Kernel:
    """A kernel of that version (6.1, or a whole release), fetched if it is not in the cache."""
    with locked_cache():
        for kernel in cached():
            if _is_of(kernel.release, version):
                return kernel
        return _fetch(_choose(version))


def _choose(version: str) -> str:
    machine = platform.machine()
    if machine != "x86_64":
        raise GuestUnavailableError(f"no guest: this host is {machine}, guests are x86_64")
    releases = offered()
    for release in releases:
        if _is_of(release, version):
            return release
    known = ", ".join(releases) or "none"
    raise GuestUnavailableError(
        f"no kernel {version}: apt offers no package linux-image-{version}...-cloud-amd64, only of "
        f"these releases: {known}; choose one of them, or add a Debian source that has it"
    )


def _fetch(release: str) -> Kernel:
    parent = CACHE / "kernels"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="new-") as name:
        work = Path(name)
        tree = debian.unpack(f"linux-image-{release}", work)
        usr_lib = tree / "usr/lib"
        usr_lib.mkdir(parents=True, exist_ok=True)
        if (tree / "lib/modules").exists():  # before Debian 13
            shutil.move(tree / "lib/modules", usr_lib)
            (tree / "lib").rmdir()
        (tree / "lib").symlink_to("usr/lib")
        host_command("depmod", "-b", tree, release, timeout_s=DEPMOD_TIMEOUT_S)
        image_tree = work / "image"
        (image_tree / "usr/lib").mkdir(parents=True)
        (tree / "usr/lib/modules").rename(image_tree / "usr/lib/modules")
        make_image(image_tree, tree / "modules.ext4")
        (image_tree / "usr/lib/modules").rename(tree / "usr/lib/modules")
        tree.rename(parent / release)
    return Kernel(release, parent / release)
