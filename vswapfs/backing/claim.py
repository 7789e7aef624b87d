"""Takes a file or block device for a tier, or refuses it.

Owns the decision what may be overwritten. Never touches what it refuses: it only reads it. Always
holds for what it returns: nobody else has claimed it, and nobody else can while it is open; but for
a tier that is taken over while reads of the predecessor stand still.

A device is claimed by opening it with O_EXCL, which fails while it is mounted, swapped to or part
of another device; a file by flock, which holds for those who ask for it: other daemons.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
import subprocess
import time
from pathlib import Path
from typing import Final, NamedTuple

from vswapfs import procfs
from vswapfs.errors import HostError, TierFormatError, UsageError
from vswapfs.format import instance, swaps
from vswapfs.format.tier import (
    SEGMENT_MIN_BYTES,
    SUPERBLOCK_BYTES,
    SUPERBLOCK_COPY_OFFSET,
    TIER_MIN_SEGMENTS,
    Superblock,
    choose,
)
from vswapfs.units import PAGE_BYTES, format_size

TIER_MIN_BYTES: Final = TIER_MIN_SEGMENTS * SEGMENT_MIN_BYTES
_HEAD_BYTES: Final = 1 << 20
_TAIL_BYTES: Final = 1 << 16
_BLKID_TIMEOUT_S: Final = 30.0
_OVERWRITE: Final = "if nothing on it is needed: tier add --overwrite, or on --tier-overwrite"

_log = logging.getLogger(__name__)


class Claim(NamedTuple):
    """A claimed medium, open for reading and writing."""

    fd: int
    is_device: bool
    created: bool
    """The file did not exist before."""
    previous: Superblock | None
    """Of the tier of the same instance that was there before, at rest."""


def claim(path: str, size_bytes: int, *, overwrite: bool, owner: str) -> Claim:
    """Claim what is at ``path`` for a tier of that size; a file that does not exist is created.

    What an earlier run of the instance ``owner`` left there is nobody's any more.

    Raises UsageError for a size or path no tier can have and HostError for everything else; nothing
    at ``path`` was changed then.
    """
    if size_bytes < TIER_MIN_BYTES or size_bytes % PAGE_BYTES:
        raise UsageError(
            f"a tier of {size_bytes} bytes on {path}: whole pages of {PAGE_BYTES} bytes, and at "
            f"least {TIER_MIN_SEGMENTS} segments",
            remedy=f"at least {format_size(TIER_MIN_BYTES)}",
        )
    if "\0" in path:
        raise UsageError(f"{path!r} is not a path: there is a zero byte in it")
    if os.path.realpath(path).startswith(f"{instance.RUN_DIRECTORY}/"):
        raise UsageError(
            f"{path} is in RAM, with the state of instances: a tier is to take pages out of RAM",
            remedy="give a block device, or a file on one",
        )
    step = f"open tier {path}"
    # Before the path is touched: to ask for a file of our own mount would be to wait for ourselves.
    if user := used_as_swap_or_loop(path):
        raise HostError(step, f"it is in use: {user}")
    try:
        return _open(step, path, size_bytes, overwrite, owner)
    except OSError as error:
        raise HostError(
            step, error.strerror or str(error), remedy="give a path that can be opened and written"
        ) from None


AGAIN_TIMEOUT_S: Final = 5.0
"""So long a medium may be in use by reads of a predecessor before it is taken beside them."""


class InUseError(HostError):
    """Somebody else has the medium."""


def claim_again(path: str, uuid: bytes) -> tuple[Claim, Superblock]:
    """Claim a tier that a predecessor of this process had, as it is.

    Raises HostError if it is not there any more.
    """
    deadline_s = time.monotonic() + AGAIN_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(InUseError):
            return _claim_again(path, uuid)
        # Reads that the predecessor had under way keep its file open until they have ended, a few
        # milliseconds after the process is gone.
        time.sleep(0.001)
    # Of a disk that stands still they end when it goes on. Without its tier this process would
    # answer EIO for all pages that are there, for good.
    _log.warning("%s is still read by a worker that has ended: taken without a lock", path)
    return _claim_again(path, uuid, lock=False)


def _claim_again(path: str, uuid: bytes, *, lock: bool = True) -> tuple[Claim, Superblock]:
    step = f"open tier {path} again"
    try:
        is_device = stat.S_ISBLK(os.stat(path).st_mode)  # noqa: PTH116
        exclusive = os.O_EXCL if is_device and lock else 0
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | exclusive)
    except OSError as error:
        kind = InUseError if error.errno == errno.EBUSY else HostError
        raise kind(step, error.strerror or str(error)) from None
    try:
        if not is_device and lock:
            _lock(step, fd)
        found = _superblock(fd)
        if found is None or found.uuid != uuid:
            what = f"tier {found.uuid.hex()}" if found else "no tier"
            raise HostError(step, f"{what} is there, and not {uuid.hex()}")
    except OSError as error:
        os.close(fd)
        raise HostError(step, error.strerror or str(error)) from None
    except BaseException:
        os.close(fd)
        raise
    return Claim(fd, is_device, created=False, previous=found), found


def _open(step: str, path: str, size_bytes: int, overwrite: bool, owner: str) -> Claim:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except FileNotFoundError:
        mode = 0
    is_device = stat.S_ISBLK(mode)
    if mode and not is_device and not stat.S_ISREG(mode):
        raise HostError(step, "neither a regular file nor a block device")
    exclusive = 0 if mode and not is_device else os.O_EXCL
    try:
        create = 0 if mode else os.O_CREAT
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | exclusive | create, 0o600)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise HostError(
                step,
                "the device is in use: mounted, swapped to or part of another device",
                remedy=f"see what uses it: lsblk {path}",
            ) from None
        raise
    try:
        if not is_device:
            _lock(step, fd)
        previous = _superblock(fd)
        mine = previous is not None and previous.name == owner
        if is_device:
            _refuse_size(step, fd, size_bytes)
        if not overwrite:
            found = _put_over_it(path, fd) if mine else find_contents(path, fd, previous)
            if found:
                raise HostError(step, f"it is not empty: {found}", remedy=_OVERWRITE)
    except BaseException:
        os.close(fd)
        raise
    return Claim(fd, is_device, created=not mode, previous=previous if mine else None)


def _lock(step: str, fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUseError(step, "the file is in use by another process (flock)") from None


def _refuse_size(step: str, fd: int, size_bytes: int) -> None:
    present_bytes = os.lseek(fd, 0, os.SEEK_END)
    if size_bytes > present_bytes:
        raise HostError(
            step,
            f"{size_bytes} bytes are more than the device has: {present_bytes}",
            remedy=f"at most {present_bytes // PAGE_BYTES * PAGE_BYTES}",
        )


def _superblock(fd: int) -> Superblock | None:
    """Of the tier that is there, if there is one."""
    copies = [os.pread(fd, SUPERBLOCK_BYTES, at) for at in (0, SUPERBLOCK_COPY_OFFSET)]
    try:
        return choose(*copies)[0]
    except TierFormatError:
        return None


def _put_over_it(path: str, fd: int) -> str | None:
    """What somebody has made of an earlier tier, whose copy of the superblock may still be whole.
    Damage alone is none: a power cut leaves that too."""
    try:
        Superblock.unpack(os.pread(fd, SUPERBLOCK_BYTES, 0))
    except TierFormatError:
        return _signature(path)
    return None


def find_contents(path: str, fd: int, tier: Superblock | None) -> str | None:
    """What someone may still want of it, in words; None if it looks empty."""
    if tier:
        return f"a tier of the instance {tier.name}, {tier.uuid.hex()}"
    present_bytes = os.lseek(fd, 0, os.SEEK_END)
    if present_bytes and (signature := _signature(path)):
        return signature
    head = os.pread(fd, min(_HEAD_BYTES, present_bytes), 0)
    if head != bytes(len(head)):
        return "data in its first MiB"
    tail = os.pread(fd, _TAIL_BYTES, max(0, present_bytes - _TAIL_BYTES))
    if tail != bytes(len(tail)):
        return "data in its last 64 KiB"
    return None


def _signature(path: str) -> str | None:
    """The file system, partition table, ... that blkid sees there."""
    try:
        result = subprocess.run(
            ["blkid", "--probe", "--output", "export", path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_BLKID_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        return None  # then the bytes themselves have to do
    except subprocess.TimeoutExpired:
        return f"blkid did not end within {_BLKID_TIMEOUT_S:.0f} s"
    if result.returncode == 8:
        return "more than one signature (see blkid --probe)"
    tags = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    # Of a partition blkid prints PART_ENTRY_ tags too: they say nothing of what is on it.
    kind = tags.get("TYPE") or tags.get("PTTYPE")
    if kind is None:
        return None
    label = tags.get("LABEL")
    return f"{kind} named {label}" if label else kind


def used_as_swap_or_loop(path: str) -> str | None:
    """By whom, told by name only."""
    real = os.path.realpath(path)
    areas = swaps.parse(procfs.lines(Path("/proc/swaps")))
    if real in {device.replace("\\040", " ") for device in areas}:
        return "swap (see /proc/swaps)"
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if procfs.lines(backing) == [real]:
                return f"/dev/{backing.parts[3]} lies on it"
        except OSError:
            continue  # detached meanwhile
    return None
