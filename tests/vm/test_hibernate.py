"""Hibernation in a guest: the machine goes on with every byte, or says why not; it never hangs."""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from damage_image import choose
from guest import Guest, Running
from machine import virtual_machine, wait_until

from vswapfs.backing.memory import MemoryBacking
from vswapfs.format.image import Header
from vswapfs.hibernate.reader import ImageReader

MIB = 1 << 20
NAME = "thib"
LOAD = "/sys/fs/cgroup/load"
JOIN = f"echo $$ >{LOAD}/cgroup.procs;"
REFUSED = 7
WHERE = {
    "header": "header, bytes 0 to 4079",
    "first": "chunk 0, bytes 4096 to ",
    "middle": "chunk ",
    "last": "chunk ",
    "index": "index, bytes ",
}
CYCLES, TRIES = 10, 50


class Image(NamedTuple):
    backing: MemoryBacking
    header: Header


class Machine:
    """A guest that swaps to vswapfs: what is held is on three homes, memory, pool and tier."""

    def __init__(self, guest: Guest, hold_mib: int, high_mib: int = 32) -> None:
        self.guest = guest
        self.tier, self.image = guest.disk(0), guest.disk(1)
        guest.run(f"vswapctl on {NAME} --size 256M --pool-limit 8M --tier {self.tier}:128M")
        guest.run(f"echo +memory >/sys/fs/cgroup/cgroup.subtree_control; mkdir -p {LOAD}")
        guest.run(f"echo {high_mib}M >{LOAD}/memory.high")
        self.holder = guest.start(
            f"{JOIN} exec python tests/vm/holder.py {hold_mib} touch", timeout_s=3000
        )
        wait_until("it holds its memory", self.has_counted, 120)

    def has_counted(self) -> bool:
        return self.guest.run("cat /run/holder.count", check=False).exit_code == 0

    def count(self) -> int:
        return int(self.guest.run("cat /run/holder.count").stdout or 0)

    def hibernate(self, options: str = "", *, before: str = "") -> Running:
        words = f"{before} vswapctl hibernate {NAME} --image {self.image}:256M {options}"
        return self.guest.start(words, timeout_s=300)

    def power_cycle(self) -> Running:
        """To the next boot, where nothing is of before; returns the hibernation, which goes on
        after the resume."""
        hibernation = self.hibernate()
        self.guest.wait_off(200)
        self.guest.boot()
        assert self.guest.run("cat /run/holder.count", check=False).exit_code == 1
        return hibernation

    def resume(self) -> None:
        """It has no end: what goes on is what ran before."""
        self.guest.start(f"vswapctl resume --image {self.image}")

    def flip(self, backing: MemoryBacking, offset: int, bit: int | None) -> None:
        """A bit on the image's disk, against what was there before; None: as it was before."""
        block = memoryview(bytearray(4096))
        backing.read_into(offset // 4096 * 4096, block)
        value = block[offset % 4096] ^ (0 if bit is None else 1 << bit)
        self._put(f"printf '\\x{value:02x}'", offset)

    def put_header(self, header: bytes) -> None:
        words = "".join(f"\\x{byte:02x}" for byte in header)
        self._put(f"printf '{words}'", 0)

    def put_header_back(self) -> None:
        self._put("cat /run/header", 0)

    def _put(self, command: str, offset: int) -> None:
        sink = f"dd of={self.image} bs=4096 oflag=seek_bytes seek={offset} conv=fsync,notrunc"
        self.guest.run(f"{command} | {sink} status=none")

    def assert_goes_on(self) -> None:
        before = self.count()
        wait_until("the holder counts on", lambda: self.count() > before)
        assert self.guest.run(f"vswapctl check {NAME}").stdout == "all invariants hold\n"

    def assert_whole(self) -> None:
        self.guest.run("touch /run/holder.verify")
        assert "are right" in self.holder.wait().stdout

    def stats(self) -> dict[str, dict[str, int]]:
        stats = json.loads(self.guest.run(f"vswapctl stats {NAME} --json").stdout)
        assert isinstance(stats, dict)
        return stats


def image_in(disk: Path) -> Image:
    """What the guest has on a disk, seen from outside."""
    data = disk.read_bytes()
    backing = MemoryBacking(len(data))
    backing.write(0, memoryview(data))
    return Image(backing, ImageReader(backing).header)


def fails(guest: Guest, command: str, status: int) -> str:
    result = guest.run(command, check=False, timeout_s=120)
    assert result.exit_code == status, result
    return result.stderr


@pytest.fixture
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guest]:
    with virtual_machine(request.param, disks=[128 * MIB, 256 * MIB], directory=tmp_path) as guest:
        yield guest


def on_kernels(*versions: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("guest", versions, indirect=True)


@pytest.mark.parametrize(
    "guest", ["6.12", pytest.param("6.1", marks=pytest.mark.long)], indirect=True
)
def test_the_machine_goes_on_where_it_was(guest: Guest, tmp_path: Path) -> None:
    machine = Machine(guest, 64)
    assert machine.stats()["disk"]["segments_written_total"] > 0

    # Too full: said before anything is frozen, with the figure.
    hog = "import mmap, ctypes; m = mmap.mmap(-1, 220 << 20); ctypes.CDLL(None).mlockall(1)"
    wait = "import time; open('/run/full', 'w').close(); time.sleep(100)"
    full = guest.start(["python", "-c", f"{hog}; {wait}"], timeout_s=120)
    wait_until("memory is full", lambda: guest.run("cat /run/full", check=False).exit_code == 0)
    said = fails(guest, f"vswapctl hibernate {NAME} --image {machine.image}:256M", 3)
    assert "memory is too full: " in said
    assert "at rest" in said
    guest.run("pkill -f [m]lockall")
    full.wait()
    machine.assert_goes_on()

    hibernation = machine.power_cycle()

    # Whatever is wrong with an image, it is refused with what and where, and the machine goes on.
    guest.run(f"head -c 4096 {machine.image} >/run/header")
    reader = image_in(tmp_path / "disk1")
    for place, where in WHERE.items():
        offset, bit = choose(reader.backing, reader.header, place, random.Random(place))
        machine.flip(reader.backing, offset, bit)
        said = fails(guest, f"vswapctl resume --image {machine.image}", REFUSED)
        assert where in said
        assert "damaged: " in said
        if place == "header":
            said = fails(guest, f"vswapctl resume --image {machine.image}", REFUSED)
            assert "refused before" in said
        machine.flip(reader.backing, offset, None)
        machine.put_header_back()
    cut = guest.run(f"losetup --show --find --sizelimit 8M {machine.image}").stdout.strip()
    assert "cut off: the device ends at byte 8388608" in fails(
        guest, f"vswapctl resume --image {cut}", REFUSED
    )
    guest.run(f"losetup -d {cut}")
    machine.put_header(replace(reader.header, kernel="another one").pack())
    said = fails(guest, f"vswapctl resume --image {machine.image}", REFUSED)
    assert "an image of another kernel: another one; this is " in said
    # A tier that was written since.
    machine.put_header_back()
    guest.run(f"head -c 2M {machine.tier} | tail -c 1M >/run/slot")
    guest.run(f"dd if=/dev/zero of={machine.tier} bs=1M seek=1 count=1 conv=fsync status=none")
    said = fails(guest, f"vswapctl resume --image {machine.image}", REFUSED)
    assert f"tier {machine.tier}: it was written after the snapshot" in said
    guest.run(f"dd if=/run/slot of={machine.tier} bs=1M seek=1 conv=fsync status=none")
    machine.put_header_back()

    machine.resume()
    assert hibernation.wait().stdout.startswith("resumed: an image of ")
    machine.assert_goes_on()
    said = fails(guest, f"vswapctl resume --image {machine.image}", REFUSED)
    assert "used already" in said
    machine.assert_whole()
    guest.run(f"vswapctl off {NAME}")


@pytest.mark.long
@on_kernels("6.12", "6.1")
def test_ten_times(guest: Guest) -> None:
    machine = Machine(guest, 64)
    for _ in range(CYCLES):
        hibernation = machine.power_cycle()
        machine.resume()
        assert hibernation.wait().exit_code == 0
        machine.assert_goes_on()
    machine.assert_whole()


@pytest.mark.long
@on_kernels("6.12", "6.1")
def test_swap_that_is_busy_is_no_hang(guest: Guest) -> None:
    """The load is put to rest first: it always succeeds."""
    machine = Machine(guest, 64)
    ended = [machine.hibernate("--test").wait() for _ in range(TRIES)]
    assert [result for result in ended if result.exit_code] == []
    machine.assert_goes_on()
    machine.assert_whole()


@pytest.mark.long
@on_kernels("6.12")
def test_load_that_cannot_be_put_to_rest_is_no_hang(guest: Guest) -> None:
    """It shares its cgroup with the command: it succeeds, or is refused."""
    machine = Machine(guest, 128, high_mib=96)
    ended = [machine.hibernate("--test", before=JOIN).wait() for _ in range(4)]
    for result in ended:
        print(result)
    assert {result.exit_code for result in ended} <= {0, 3}
    machine.assert_goes_on()
    machine.assert_whole()


@pytest.mark.long
@pytest.mark.parametrize("option", ["", "nocompress"])
def test_what_the_kernel_notices_of_the_same_damage(option: str, tmp_path: Path) -> None:
    """One flipped bit in the image that it makes itself, with its CRC32 and without."""
    marker = b"what a page of memory says, again and again; " * 2000
    with virtual_machine(
        "6.1", disks=[512 * MIB], directory=tmp_path, append=f"hibernate={option}" if option else ""
    ) as guest:
        disk = guest.disk(0)
        guest.run(f"mkswap {disk}; swapon {disk}")
        text = marker[:45].decode()
        guest.run(f"yes '{text}' | tr -d '\\n' | head -c 32M >/run/kept")
        guest.run("sha256sum /run/kept >/run/sum")
        guest.run("head -c 32M /dev/urandom >/run/random; sha256sum /run/random >>/run/sum")
        hibernation = guest.start(
            "echo shutdown >/sys/power/disk; echo disk >/sys/power/state; sha256sum -c /run/sum",
            timeout_s=120,
        )
        guest.wait_off(60)
        flip_one_bit(tmp_path / "disk0", marker[:45] * 3 if option else b"")
        guest.boot()
        guest.start(f"stat -c %Hr:%Lr {disk} >/sys/power/resume")
        if option:
            # It goes on with a wrong byte, and says nothing.
            assert "/run/kept: FAILED" in hibernation.wait().stdout
        else:
            time.sleep(15)
            assert "Invalid image CRC32" in guest.console.read_text(errors="replace")


def flip_one_bit(disk: Path, marker: bytes) -> None:
    """In the marker's first place; without a marker, in the middle of what is not zero."""
    data = bytearray(disk.read_bytes())
    if marker:
        at = data.index(marker, 64 * MIB // 8) + 7
    else:
        last = max(at for at in range(0, len(data), MIB) if any(data[at : at + MIB]))
        at = last // 2 + 123
    data[at] ^= 1
    disk.write_bytes(data)
