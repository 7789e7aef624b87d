"""Tiers that are encrypted: a known plaintext is not there, what was changed there is EIO, and a
successor of a killed worker reads them all the same."""

import errno
import json
import os
import random
import signal
import stat
from pathlib import Path

from machine import (
    Instance,
    ctl,
    ctl_ok,
    require_survival,
    run,
    swap_instance,
    wait_until,
)

NAME = "tencrypt"
MIB = 1 << 20
PAGES = 2400
AT_ONCE = 16
SECRET = b"the quick brown secret of a page"
BLOCK_BYTES = 4096


def page(number: int) -> bytes:
    """With the secret as it is and, by turns, what compresses or what does not around it."""
    noise = random.Random(number)
    if number % 3:
        return SECRET + noise.randbytes(BLOCK_BYTES - len(SECRET))
    return (SECRET + noise.randbytes(2000) + bytes(BLOCK_BYTES))[:BLOCK_BYTES]


assert {len(page(0)), len(page(1))} == {BLOCK_BYTES}


def write_out(up: Instance) -> None:
    """Store all pages, and have them written to the tier."""
    assert up.device
    assert run("swapoff", up.device).returncode == 0
    with Path(up.device).open("r+b", buffering=0) as device:
        for number in range(PAGES):
            os.pwrite(device.fileno(), page(number), number * BLOCK_BYTES)
    ctl_ok("writeback", NAME, "--all")
    assert up.stats()["pages"]["disk"] > 0.7 * PAGES


def lost_pages(up: Instance) -> set[int]:
    """Read all pages, a few together and, where that fails, each by itself; returns those that are
    EIO. No other may be wrong."""
    assert up.device
    assert run("blockdev", "--flushbufs", up.device).returncode == 0
    lost: set[int] = set()
    fd = os.open(up.device, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)

    def read(first: int, count: int) -> None:
        expected = b"".join(map(page, range(first, first + count)))
        try:
            found = os.pread(fd, len(expected), first * BLOCK_BYTES)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            found = b""
        assert expected.startswith(found), f"pages from {first} on have wrong bytes"
        if len(found) == len(expected):
            return
        if count == 1:
            lost.add(first)
            return
        for number in range(first, first + count):
            read(number, 1)

    try:
        for first in range(0, PAGES, AT_ONCE):
            read(first, AT_ONCE)
    finally:
        os.close(fd)
    return lost


class Medium:
    """The tier's file, changed behind the daemon's back."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR)

    def read(self, slot: int, block: int, count: int = 1) -> bytes:
        return os.pread(self._fd, count * BLOCK_BYTES, (slot + 1) * MIB + block * BLOCK_BYTES)

    def write(self, slot: int, block: int, data: bytes | bytearray) -> None:
        os.pwrite(self._fd, data, (slot + 1) * MIB + block * BLOCK_BYTES)
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def has_library(up: Instance) -> bool:
    """Whether the worker has loaded the cryptography library."""
    return "/cryptography/" in Path(f"/proc/{up.status()['worker_pid']}/maps").read_text()


def test_a_known_plaintext_is_found_without(tmp_path: Path) -> None:
    tier = tmp_path / "tier"
    with swap_instance(NAME, "--size", "64M", "--tier", f"{tier}:64M") as up:
        write_out(up)
        assert tier.read_bytes().count(SECRET) > 0.7 * PAGES
        assert not has_library(up)
        up.kill()
    assert tier.read_bytes().count(SECRET) > 0.7 * PAGES


def test_a_known_plaintext_is_not_found_with_encrypt(tmp_path: Path) -> None:
    tier, second = tmp_path / "tier", tmp_path / "second"
    tier.touch(mode=0o644)
    with swap_instance(NAME, "--size", "64M", "--encrypt", "--tier", f"{tier}:64M") as up:
        outcomes = {outcome["name"]: outcome["ok"] for outcome in up.status()["hardening"]}
        assert outcomes["mlockall"]
        assert outcomes["core_dumps"]
        assert has_library(up)
        assert not readable_by_others(up, tier)
        write_out(up)
        for number in range(PAGES):
            assert SECRET in page(number)
        for contents in (tier.read_bytes(), ctl_ok("log", "dump", str(tier)).encode()):
            assert contents.find(SECRET[:6]) < 0
        assert lost_pages(up) == set()
        ctl_ok("scrub", NAME)
        # To another tier, through RAM: the segments that are there are written once more.
        ctl_ok("tier", "add", NAME, f"{second}:64M")
        ctl_ok("tier", "remove", NAME, str(tier))
        ctl_ok("writeback", NAME, "--all")
        assert up.stats()["pages"]["disk"] > 0.7 * PAGES
        assert second.read_bytes().find(SECRET[:6]) < 0
        assert lost_pages(up) == set()
        ctl_ok("drain", NAME)
        assert lost_pages(up) == set()
        ctl_ok("writeback", NAME, "--all")
        up.assert_healthy()
        up.kill()
    # At rest nobody has the key; damage is seen all the same.
    assert second.read_bytes().find(SECRET[:6]) < 0
    checked = ctl("log", "check", str(second))
    assert checked.returncode == 0, checked.stdout
    assert "only the running instance has the key" in checked.stderr
    dumped = json.loads(ctl_ok("log", "dump", str(second), "--records", "--json"))
    assert dumped["superblock"]["cipher"] == "AES-256-GCM"
    assert [each["records"] for each in dumped["segments"]] == [[]] * len(dumped["segments"])
    medium = Medium(second)
    slot = dumped["segments"][0]["slot"]
    medium.write(slot, 3, bytes(BLOCK_BYTES))
    medium.close()
    assert ctl("log", "check", str(second)).returncode == 1


def readable_by_others(up: Instance, tier: Path) -> list[str]:
    """Of all that may show pages or the key, what others than root can reach."""
    run_directory = Path(f"/run/vswapfs/{NAME}")
    paths = [tier, *run_directory.rglob("*"), run_directory, Path(up.mountpoint), Path(up.file)]
    if up.status()["survival"] != "none":  # else it has no files
        assert run_directory / "state" / "session" in paths
    assert run_directory / "control" in paths
    found = []
    for path in paths:
        status = path.lstat()
        if status.st_uid or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            found.append(f"{path} {stat.filemode(status.st_mode)} of {status.st_uid}")
    # What lies below a directory that only root may enter is out of reach.
    closed = [path for path in paths if path.is_dir() and not path.lstat().st_mode & 0o077]
    return [
        each for each in found if not any(Path(each.split()[0]).is_relative_to(d) for d in closed)
    ]


def test_what_was_changed_is_eio_and_no_wrong_byte(tmp_path: Path) -> None:
    tier = tmp_path / "tier"
    with swap_instance(NAME, "--size", "64M", "--encrypt", "--tier", f"{tier}:64M") as up:
        write_out(up)
        medium = Medium(tier)
        blocks = medium.read(0, 0, 256)

        def tampered(slot: int, block: int, data: bytes | bytearray) -> set[int]:
            """The pages lost with these bytes there; then it is put right again."""
            before = medium.read(slot, block, len(data) // BLOCK_BYTES)
            medium.write(slot, block, data)
            lost = lost_pages(up)
            medium.write(slot, block, before)
            return lost

        flipped = bytearray(blocks[5 * BLOCK_BYTES : 6 * BLOCK_BYTES])
        flipped[1000] ^= 4
        assert tampered(0, 5, flipped)
        flipped[1000] ^= 4
        flipped[-1] ^= 128  # of the tag
        lost = tampered(0, 5, flipped)
        assert lost
        assert up.stats()["checksum_errors"] >= len(lost)
        told = ctl("lost", NAME, "--json")
        assert told.returncode == 1
        assert {each["offset"] // BLOCK_BYTES for each in json.loads(told.stdout)} >= lost
        swapped = (
            blocks[6 * BLOCK_BYTES : 7 * BLOCK_BYTES] + blocks[5 * BLOCK_BYTES :][:BLOCK_BYTES]
        )
        assert tampered(0, 5, swapped)
        # Another segment of the same tier, whole, and with it a header that is right in itself.
        assert len(tampered(0, 0, medium.read(1, 0, 256))) > 200
        assert lost_pages(up) == set()
        medium.write(0, 9, bytes(BLOCK_BYTES))
        scrubbed = ctl("scrub", NAME)
        assert scrubbed.returncode == 1
        assert "does not decrypt" in scrubbed.stdout
        medium.write(0, 9, blocks[9 * BLOCK_BYTES : 10 * BLOCK_BYTES])
        medium.close()
        ctl_ok("drain", NAME)
        assert lost_pages(up) == set()


def test_a_successor_reads_what_was_encrypted(tmp_path: Path) -> None:
    require_survival()
    with swap_instance(
        NAME, "--size", "64M", "--encrypt", "--tier", f"{tmp_path / 'tier'}:64M"
    ) as up:
        write_out(up)
        for number in (1, 2):
            wait_until("a standby", lambda: up.status()["standby_pid"])
            os.kill(up.status()["worker_pid"], signal.SIGKILL)
            wait_until("a successor", lambda: ctl("status", NAME, "--json").returncode == 0)
            assert up.status()["takeovers"] == number
            assert lost_pages(up) == set()
            # What this one writes, the next one reads.
            ctl_ok("drain", NAME)
            ctl_ok("writeback", NAME, "--all")
        ctl_ok("scrub", NAME)
        up.assert_healthy()
