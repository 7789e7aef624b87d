"""Backings: the contract on every medium, what is refused, and what goes wrong on purpose."""

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from machine import missing, run

from vswapfs.backing import claim
from vswapfs.backing import file as file_module
from vswapfs.backing.api import BLOCK_BYTES, Backing
from vswapfs.backing.faulty import Fault, FaultyBacking
from vswapfs.backing.file import FileBacking
from vswapfs.backing.memory import MemoryBacking
from vswapfs.ctl import medium
from vswapfs.errors import HostError, UsageError
from vswapfs.format.tier import Superblock

MIB = 1 << 20
SIZE = 8 * MIB
SUPERBLOCK = Superblock(b"u" * 16, "vswap7", MIB, 7, 1, 1_750_000_000)


def buffer(data: bytes) -> memoryview:
    """Page-aligned memory, as O_DIRECT needs it."""
    memory = mmap.mmap(-1, max(len(data), 1))
    memory[: len(data)] = data
    return memoryview(memory)[: len(data)]


def blocks(*letters: str) -> memoryview:
    return buffer(b"".join(letter.encode() * BLOCK_BYTES for letter in letters))


def read(backing: Backing, offset: int, length: int = BLOCK_BYTES) -> bytes:
    into = buffer(bytes(length))
    backing.read_into(offset, into)
    return bytes(into)


def letters(backing: Backing, offset: int, count: int) -> str:
    data = read(backing, offset, count * BLOCK_BYTES)
    return "".join(chr(data[at] or ord("0")) for at in range(0, len(data), BLOCK_BYTES))


def ok(*argv: str | Path) -> str:
    result = run(*argv)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@contextmanager
def loop_device(file: Path, size_bytes: int = SIZE) -> Iterator[str]:
    if os.geteuid() != 0:
        missing("not root")
    if not Path("/dev/loop-control").exists():
        missing("no /dev/loop-control")
    with file.open("xb") as opened:
        opened.truncate(size_bytes)
    device = ok("losetup", "--find", "--show", "--sector-size", "4096", file)
    try:
        yield device
    finally:
        ok("losetup", "--detach", device)


@contextmanager
def mounted(path: Path, *arguments: str) -> Iterator[Path]:
    path.mkdir()
    ok("mount", *arguments, path)
    try:
        yield path
    finally:
        ok("umount", path)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    with loop_device(tmp_path / "device") as name:
        yield name


@pytest.fixture
def small_ext4(tmp_path: Path) -> Iterator[Path]:
    with loop_device(tmp_path / "ext4", 24 * MIB) as name:
        ok("mkfs.ext4", "-q", "-O", "^has_journal", name)
        with mounted(tmp_path / "small", name) as path:
            yield path


@pytest.fixture(params=["memory", "faulty", "file", "device"])
def backing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backing]:
    made: Backing
    if request.param == "device":
        made = FileBacking.open(
            request.getfixturevalue("device"), SIZE, overwrite=False, owner="vswap0"
        )
    elif request.param == "file":
        made = FileBacking.open(str(tmp_path / "tier"), SIZE, overwrite=False, owner="vswap0")
    elif request.param == "faulty":
        made = FaultyBacking(MemoryBacking(SIZE), {})
    else:
        made = MemoryBacking(SIZE)
    yield made
    made.close()


# -- the contract -----------------------------------------------------------------------------


def test_reads_what_was_written(backing: Backing) -> None:
    assert backing.size_bytes == SIZE
    assert not any(read(backing, 0, SIZE))
    backing.write(MIB, blocks("a", "b", "c"))
    backing.write(SIZE - BLOCK_BYTES, blocks("z"))
    backing.flush()
    assert letters(backing, MIB - BLOCK_BYTES, 5) == "0abc0"
    assert letters(backing, SIZE - BLOCK_BYTES, 1) == "z"


def test_trimmed_blocks_can_be_written_again(backing: Backing) -> None:
    backing.write(MIB, blocks(*"abcdef"))
    backing.trim(MIB + BLOCK_BYTES, 2 * BLOCK_BYTES)
    assert letters(backing, MIB, 6) == "a00def"
    backing.write(MIB + BLOCK_BYTES, blocks("x"))
    assert letters(backing, MIB, 4) == "ax0d"


@pytest.mark.parametrize(
    ("offset", "length"),
    [(512, 4096), (0, 100), (-4096, 4096), (SIZE, 4096), (SIZE - 4096, 8192)],
)
def test_other_ranges_are_invalid(backing: Backing, offset: int, length: int) -> None:
    for operation in (backing.read_into, backing.write):
        with pytest.raises(OSError, match="are not blocks") as raised:
            operation(offset, buffer(bytes(length)))
        assert raised.value.errno == errno.EINVAL
    with pytest.raises(OSError, match="are not blocks"):
        backing.trim(offset, length)


def test_many_threads_at_once(backing: Backing) -> None:
    def work(number: int) -> None:
        letter = chr(ord("a") + number)
        for turn in range(20):
            at = (number * 20 + turn) * BLOCK_BYTES
            backing.write(at, blocks(letter))
            backing.flush()
            assert letters(backing, at, 1) == letter

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert letters(backing, 0, 160) == "".join(letter * 20 for letter in "abcdefgh")


def test_after_close_nothing_is_reached() -> None:
    memory = MemoryBacking(SIZE)
    memory.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        read(memory, 0)


# -- files ------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tier"


def open_file(path: Path | str, size_bytes: int = SIZE, *, overwrite: bool = False) -> FileBacking:
    return FileBacking.open(str(path), size_bytes, overwrite=overwrite, owner="vswap0")


def test_a_new_file_is_private_preallocated_and_past_the_page_cache(path: Path) -> None:
    backing = open_file(path)
    status = path.stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_size == SIZE
    assert status.st_blocks * 512 >= SIZE
    assert fcntl.fcntl(backing._fd, fcntl.F_GETFL) & os.O_DIRECT
    assert not os.get_inheritable(backing._fd)
    backing.trim(MIB, MIB)
    assert path.stat().st_blocks * 512 < SIZE
    assert path.stat().st_size == SIZE
    backing.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        read(backing, 0)


@pytest.mark.parametrize("present_bytes", [0, 5 * MIB, SIZE + 5 * MIB])
def test_an_empty_or_zero_file_is_taken(path: Path, present_bytes: int) -> None:
    with path.open("xb") as opened:
        opened.truncate(present_bytes)
    backing = open_file(path)
    assert path.stat().st_size == max(present_bytes, SIZE)
    assert path.stat().st_blocks * 512 >= SIZE
    backing.close()


@pytest.mark.parametrize(
    ("at", "what"),
    [(0, "first MiB"), (MIB - 1, "first MiB"), (12 * MIB - 1, "last 64 KiB")],
)
def test_a_file_with_data_is_refused_untouched_and_overwritten_if_asked_for(
    path: Path, at: int, what: str
) -> None:
    contents = bytearray(12 * MIB)
    contents[at] = 1
    contents[2 * MIB] = 1
    path.write_bytes(contents)
    before = path.stat()
    with pytest.raises(HostError, match=what) as raised:
        open_file(path)
    assert "overwrite" in raised.value.remedy
    assert path.read_bytes() == contents
    assert (path.stat().st_mtime_ns, path.stat().st_mode) == (before.st_mtime_ns, before.st_mode)
    backing = open_file(path, overwrite=True)
    assert not any(read(backing, 0, SIZE))
    assert path.stat().st_blocks * 512 >= SIZE
    assert path.read_bytes()[SIZE:] == contents[SIZE:]
    backing.close()


@pytest.mark.parametrize("copy", [0, 524288])
def test_a_tier_is_refused_by_its_name(path: Path, copy: int) -> None:
    path.write_bytes(bytes(copy) + SUPERBLOCK.pack() + bytes(SIZE))
    with pytest.raises(HostError, match=f"a tier of the instance vswap7, {'75' * 16}"):
        open_file(path)


@pytest.mark.parametrize("copy", [0, 524288])
def test_an_earlier_tier_of_the_owner_is_taken_and_told(path: Path, copy: int) -> None:
    superblock = replace(SUPERBLOCK, name="vswap0", budget_spent_bytes=99)
    path.write_bytes((bytes(copy) + superblock.pack()).ljust(SIZE, b"x"))
    for _ in range(2):
        # Its superblock stays until another is written; else a power cut now would lose it.
        backing = open_file(path)
        assert backing.previous == superblock
        left = bytearray(read(backing, 0, SIZE))
        assert left[copy : copy + BLOCK_BYTES] == superblock.pack()
        for place in (0, 524288):
            left[place : place + BLOCK_BYTES] = bytes(BLOCK_BYTES)
        assert not any(left)
        backing.close()


def test_an_earlier_tier_of_the_owner_is_its_newer_superblock(path: Path) -> None:
    older = replace(SUPERBLOCK, name="vswap0")
    newer = replace(older, generation=2)
    path.write_bytes(older.pack().ljust(524288, b"\0") + newer.pack())
    backing = open_file(path)
    assert backing.previous == newer
    backing.close()


def test_what_was_put_over_an_earlier_tier_of_the_owner_is_refused(path: Path) -> None:
    """mkswap and others leave the copy of the superblock alone."""
    superblock = replace(SUPERBLOCK, name="vswap0").pack()
    path.write_bytes((superblock.ljust(524288, b"\0") + superblock).ljust(SIZE, b"\0"))
    ok("mkswap", "--label", "precious", path)
    with pytest.raises(HostError, match="swap named precious"):
        open_file(path)
    assert path.read_bytes()[524288:][:BLOCK_BYTES] == superblock
    open_file(path, overwrite=True).close()


@pytest.mark.parametrize("torn", [512, 3584])
def test_a_torn_superblock_is_no_reason_to_refuse_an_earlier_tier(path: Path, torn: int) -> None:
    superblock = replace(SUPERBLOCK, name="vswap0").pack()
    newer = replace(SUPERBLOCK, name="vswap0", generation=2).pack()
    first = newer[:torn] + superblock[torn:]
    path.write_bytes((first.ljust(524288, b"\0") + newer).ljust(SIZE, b"\0"))
    open_file(path).close()


def test_a_file_system_image_is_refused_by_its_kind(path: Path) -> None:
    with path.open("xb") as opened:
        opened.truncate(SIZE)
    ok("mkfs.ext4", "-q", "-L", "precious", path)
    with pytest.raises(HostError, match="ext4 named precious"):
        open_file(path)


def test_a_file_in_use_is_refused_until_it_is_closed(path: Path) -> None:
    first = open_file(path)
    first.write(0, blocks("a"))
    with pytest.raises(HostError, match="in use by another process"):
        open_file(path, overwrite=True)
    assert letters(first, 0, 1) == "a"
    first.close()
    open_file(path, overwrite=True).close()


def test_a_tier_that_a_predecessor_still_reads_is_taken_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may stand still for longer than that. All pages that are there were EIO for good."""
    monkeypatch.setattr(claim, "AGAIN_TIMEOUT_S", 0.1)
    before = open_file(path)
    before.write(0, buffer(SUPERBLOCK.pack()))
    backing, found = FileBacking.open_again(str(path), SIZE, SUPERBLOCK.uuid)
    assert found == SUPERBLOCK
    backing.close()
    with pytest.raises(HostError, match="and not 0000"):
        FileBacking.open_again(str(path), SIZE, bytes(16))
    before.close()


def test_a_file_below_a_loop_device_is_refused(device: str, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "device")
    for name in (tmp_path / "device", link):
        with pytest.raises(HostError, match=f"in use: {device} lies on it"):
            open_file(name, overwrite=True)


def test_a_swap_file_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("not root")
    path = tmp_path / "a swap file"
    path.touch(0o600)
    ok("fallocate", "--length", str(SIZE), path)
    ok("mkswap", path)
    ok("swapon", "--priority", "0", path)
    try:
        with pytest.raises(HostError, match="in use: swap"):
            open_file(path, overwrite=True)
    finally:
        ok("swapoff", path)


@pytest.mark.parametrize("size_bytes", [0, 4 * MIB - 4096, SIZE + 512])
def test_sizes_that_no_tier_has_are_refused(path: Path, size_bytes: int) -> None:
    with pytest.raises(UsageError, match="at least 4 segments"):
        open_file(path, size_bytes)
    assert not path.exists()


def test_what_is_neither_file_nor_device_is_refused(tmp_path: Path) -> None:
    for name in (tmp_path, "/dev/null"):
        with pytest.raises(HostError, match="neither a regular file nor a block device"):
            open_file(name)
    with pytest.raises(HostError, match="No such file or directory"):
        open_file(tmp_path / "missing" / "tier")


def test_no_space_leaves_nothing_behind(small_ext4: Path) -> None:
    with pytest.raises(HostError, match=r"no space for 64\.0M; .* were free"):
        open_file(small_ext4 / "tier", 64 * MIB)
    assert not (small_ext4 / "tier").exists()
    (small_ext4 / "empty").touch()
    with pytest.raises(HostError, match="no space"):
        open_file(small_ext4 / "empty", 64 * MIB)
    assert (small_ext4 / "empty").stat().st_size == 0
    (small_ext4 / "data").write_bytes(b"data")
    with pytest.raises(HostError, match="no space"):
        open_file(small_ext4 / "data", 64 * MIB, overwrite=True)
    assert (small_ext4 / "data").read_bytes() == b"data"


def test_after_a_trim_a_full_file_system_is_a_failed_write(small_ext4: Path) -> None:
    with closing(open_file(small_ext4 / "tier")) as backing:
        fill_up(small_ext4 / "filler")
        backing.write(MIB, blocks("a"))  # preallocated
        backing.trim(4 * MIB, MIB)
        fill_up(small_ext4 / "filler2")
        with pytest.raises(OSError, match="No space left") as raised:
            backing.write(4 * MIB, buffer(b"b" * MIB))
        assert raised.value.errno == errno.ENOSPC
        assert letters(backing, MIB, 1) == "a"
        (small_ext4 / "filler2").unlink()
        backing.write(4 * MIB, blocks("b"))


def fill_up(path: Path) -> None:
    with path.open("xb", buffering=0) as opened, suppress(OSError):
        while opened.write(b"x" * BLOCK_BYTES):
            os.fsync(opened.fileno())


def test_where_space_cannot_be_promised_no_tier_is_made(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("not root")
    with mounted(tmp_path / "ram", "-t", "ramfs", "ramfs") as ram:
        with pytest.raises(HostError, match="cannot preallocate"):
            open_file(ram / "tier")
        assert not list(ram.iterdir())


def test_without_direct_io_it_goes_on_and_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = fcntl.fcntl

    def refuse(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    backing = open_file(path)
    assert f"{path}: no direct I/O" in caplog.text
    backing.write(0, blocks("a"))
    assert letters(backing, 0, 2) == "a0"
    backing.close()


def test_a_short_transfer_is_finished_or_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = open_file(path)
    preadv, pwritev = os.preadv, os.pwritev
    calls: list[int] = []

    def short_write(fd: int, views: list[memoryview], offset: int) -> int:
        calls.append(offset)
        return pwritev(fd, [views[0][: BLOCK_BYTES + 512][:BLOCK_BYTES]], offset) + 512

    def short_read(fd: int, views: list[memoryview], offset: int) -> int:
        return preadv(fd, [views[0][:BLOCK_BYTES]], offset)

    monkeypatch.setattr(os, "pwritev", short_write)
    monkeypatch.setattr(os, "preadv", short_read)
    backing.write(0, blocks("a", "b", "c"))
    assert calls == [0, 4096, 8192]
    assert letters(backing, 0, 3) == "abc"
    monkeypatch.setattr(os, "pwritev", lambda fd, views, offset: 0)
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: 100)
    with pytest.raises(OSError, match="short write at byte 4096: 0 bytes") as raised:
        backing.write(4096, blocks("a"))
    assert raised.value.errno == errno.EIO
    with pytest.raises(OSError, match="short read at byte 0: 100 bytes"):
        read(backing, 0)
    backing.close()


def test_a_medium_that_cannot_be_trimmed_is_asked_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backing = open_file(path)
    backing.write(0, blocks("a"))
    calls: list[int] = []

    def refuse(fd: int, mode: int, offset: int, length: int) -> None:
        calls.append(offset)
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(file_module, "_fallocate", refuse)
    assert not backing.trim(0, 4096)
    assert not backing.trim(0, 4096)
    assert calls == [0]
    (said,) = caplog.messages
    assert said == f"{path}: trim: Operation not supported: it is not asked again"
    assert letters(backing, 0, 1) == "a"
    backing.close()


@pytest.mark.parametrize("there", [False, True])
def test_a_file_that_cannot_be_made_ours_is_left_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if there:
        path.touch()
    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(HostError, match="readable by root only"):
        open_file(path)
    assert path.exists() == there


# -- devices ----------------------------------------------------------------------------------


def test_a_trimmed_device_gives_space_back(device: str, tmp_path: Path) -> None:
    backing = open_file(device)
    backing.write(MIB, buffer(b"a" * 4 * MIB))
    backing.flush()
    used = (tmp_path / "device").stat().st_blocks
    backing.trim(MIB, 4 * MIB)
    assert used - (tmp_path / "device").stat().st_blocks >= 4 * MIB // 512
    backing.close()


def test_a_device_is_claimed_while_it_is_open(device: str) -> None:
    backing = open_file(device)
    with pytest.raises(HostError, match="the device is in use"):
        open_file(device, overwrite=True)
    backing.close()
    open_file(device).close()


def test_a_device_with_a_file_system_is_refused_untouched(device: str, tmp_path: Path) -> None:
    ok("mkfs.ext4", "-q", "-L", "precious", device)
    before = Path(device).read_bytes()
    with pytest.raises(HostError, match="not empty: ext4 named precious"):
        open_file(device)
    assert Path(device).read_bytes() == before
    with mounted(tmp_path / "mnt", device):
        for overwrite in (False, True):
            with pytest.raises(HostError, match="in use: mounted"):
                open_file(device, overwrite=overwrite)
    ok("e2fsck", "-fn", device)
    backing = open_file(device, overwrite=True)
    assert not any(read(backing, 0, MIB))
    backing.close()
    assert run("blkid", "--probe", device).returncode == 2


@pytest.mark.parametrize(("at", "what"), [(5000, "first MiB"), (SIZE - 1, "last 64 KiB")])
def test_a_device_with_unknown_data_is_refused_untouched(device: str, at: int, what: str) -> None:
    with Path(device).open("r+b") as opened:
        opened.seek(at)
        opened.write(b"?")
    with pytest.raises(HostError, match=f"data in its {what}"):
        open_file(device)
    assert Path(device).read_bytes()[at] == ord("?")


def test_a_size_above_the_device_is_refused(device: str) -> None:
    with pytest.raises(HostError, match=f"more than the device has: {SIZE}") as raised:
        open_file(device, SIZE + 4096)
    assert raised.value.remedy == f"at most {SIZE}"


def test_only_so_much_of_a_device_as_asked_for_is_touched(device: str) -> None:
    with Path(device).open("r+b") as opened:
        opened.seek(5 * MIB)
        opened.write(b"?" * 4096)
    backing = open_file(device, 5 * MIB)
    with pytest.raises(OSError, match="are not blocks"):
        backing.trim(5 * MIB, 4096)
    backing.close()
    assert Path(device).read_bytes()[5 * MIB : 5 * MIB + 4096] == b"?" * 4096


@pytest.mark.parametrize("kind", ["file", "device"])
def test_the_offline_reader_and_a_daemon_see_each_other(
    kind: str, path: Path, request: pytest.FixtureRequest
) -> None:
    name = request.getfixturevalue("device") if kind == "device" else str(path)
    with closing(open_file(name)) as backing, medium.opened(name) as reader:
        assert reader.in_use
        backing.write(0, blocks("a"))
        backing.flush()
        assert reader.read(0, 4) == b"aaaa"
        assert reader.size_bytes == SIZE
    with medium.opened(name) as reader:
        assert not reader.in_use
        with pytest.raises(HostError, match="in use"):
            open_file(name, overwrite=True)


# -- power cuts -------------------------------------------------------------------------------


def test_what_was_flushed_survives_and_the_rest_may() -> None:
    memory = MemoryBacking(4 * BLOCK_BYTES)
    memory.write(0, blocks(*"abcd"))
    memory.flush()
    memory.write(BLOCK_BYTES, blocks("x", "y"))
    memory.write(BLOCK_BYTES, blocks("z"))
    assert letters(memory.crash_clone("none"), 0, 4) == "abcd"
    assert letters(memory.crash_clone("all"), 0, 4) == "azyd"
    seen = {letters(memory.crash_clone(Random(seed)), 0, 4) for seed in range(200)}
    assert seen == {f"a{one}{two}d" for one in "bxz" for two in "cy"}
    assert letters(memory, 0, 4) == "azyd"


def test_a_clone_is_a_medium_of_its_own() -> None:
    memory = MemoryBacking(2 * BLOCK_BYTES)
    memory.write(0, blocks("a"))
    clone = memory.crash_clone("all")
    memory.write(0, blocks("b"))
    assert letters(clone.crash_clone("none"), 0, 1) == "a"


def test_the_same_random_numbers_make_the_same_clone() -> None:
    memory = MemoryBacking(16 * BLOCK_BYTES)
    for letter in "abc":
        memory.write(0, blocks(*(letter * 16)))
    memory.trim(0, 4 * BLOCK_BYTES)
    clones = [letters(memory.crash_clone(Random(7)), 0, 16) for _ in range(2)]
    assert clones[0] == clones[1]


# -- faults by plan ---------------------------------------------------------------------------


def faulty(plan: dict[int, Fault]) -> FaultyBacking:
    """Operation 0 has been the write of eight blocks."""
    backing = FaultyBacking(MemoryBacking(8 * BLOCK_BYTES), plan)
    backing.write(0, blocks(*"abcdefgh"))
    return backing


def test_an_error_at_any_operation_does_nothing() -> None:
    backing = faulty(dict.fromkeys(range(1, 5), Fault.ERROR))
    for operation in (
        lambda: backing.write(0, blocks("x")),
        lambda: backing.trim(0, 4096),
        backing.flush,
        lambda: read(backing, 0),
    ):
        with pytest.raises(OSError, match="planned") as raised:
            operation()
        assert raised.value.errno == errno.EIO
    assert letters(backing, 0, 8) == "abcdefgh"
    assert backing.operation_count == 6
    assert backing.injected == [1, 2, 3, 4]


def test_short_operations_do_the_first_half() -> None:
    backing = faulty({1: Fault.SHORT, 2: Fault.SHORT})
    with pytest.raises(OSError, match="short write at byte 8192"):
        backing.write(0, blocks(*"wxyz"))
    into = buffer(bytes(4 * BLOCK_BYTES))
    with pytest.raises(OSError, match="short read at byte 8192"):
        backing.read_into(0, into)
    assert bytes(into[::BLOCK_BYTES]) == b"wx\0\0"
    assert letters(backing, 0, 8) == "wxcdefgh"


def test_a_flip_is_one_bit_of_what_is_read() -> None:
    backing = faulty({2: Fault.FLIP})
    whole = read(backing, 0, 8 * BLOCK_BYTES)
    damaged = read(backing, 0, 8 * BLOCK_BYTES)
    wrong = [a ^ b for a, b in zip(whole, damaged, strict=True) if a != b]
    assert len(wrong) == 1
    assert wrong[0].bit_count() == 1
    assert read(backing, 0, 8 * BLOCK_BYTES) == whole


def test_lost_operations_say_they_are_done() -> None:
    backing = faulty({1: Fault.LOST, 2: Fault.LOST, 3: Fault.LOST})
    backing.write(0, blocks("x"))
    backing.trim(0, BLOCK_BYTES)
    backing.flush()
    assert letters(backing, 0, 8) == "abcdefgh"
    inner = backing._inner
    assert isinstance(inner, MemoryBacking)
    assert letters(inner.crash_clone("none"), 0, 8) == "00000000"


def test_misplaced_operations_go_next_to_their_place() -> None:
    backing = faulty({1: Fault.MISPLACED, 2: Fault.MISPLACED, 3: Fault.MISPLACED})
    backing.write(0, blocks("x", "y"))
    backing.write(6 * BLOCK_BYTES, blocks("v", "w"))
    assert letters(backing, 0, 2) == "xy"
    assert letters(backing, 0, 8) == "abxyvwgh"


def test_a_fault_that_does_not_fit_does_nothing() -> None:
    backing = faulty({1: Fault.FLIP, 2: Fault.LOST, 3: Fault.SHORT})
    backing.write(0, blocks("x"))
    assert letters(backing, 0, 1) == "x"
    backing.flush()
    assert backing.injected == []
