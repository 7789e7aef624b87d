"""The mounted file as any program sees it: bytes, holes, sizes, errors."""

import ctypes
import errno
import json
import mmap
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from machine import Instance, ctl_ok, mounted_instance, run

from vswapfs.host import loop

SIZE = 16 << 20
PUNCH_HOLE, ZERO_RANGE, KEEP_SIZE = 2, 0x10, 1

_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    mountpoint = tmp_path_factory.mktemp("mnt with space")
    with mounted_instance("tfile", mountpoint, "--size", "16M", "--pool-limit", "64M") as mounted:
        yield mounted
        mounted.assert_healthy()


def fallocate(fd: int, mode: int, offset: int, length: int) -> int:
    """Returns 0 or the errno."""
    result = _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
    return 0 if result == 0 else ctypes.get_errno()


def use_byte_ranges(instance: Instance, seed: int, between: Callable[[], object]) -> None:
    """Write, read and punch, against a bytearray: offsets and lengths that have nothing to do with
    pages. ``between``: called now and then."""
    rng = random.Random(seed)
    fd = os.open(instance.file, os.O_RDWR)
    try:
        assert fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, SIZE) == 0
        truth = bytearray(SIZE)
        for number in range(400):
            if number % 20 == 0:
                between()
            length = rng.choice((1, 7, 511, 512, 4095, 4096, 4097, 10_000, 65_536, 1 << 20))
            offset = rng.randrange(SIZE - length + 1)
            if rng.random() < 0.3:
                offset = offset // 4096 * 4096
            action = rng.random()
            if action < 0.4:
                data = rng.choice((rng.randbytes(length), bytes(length), b"ab" * length))[:length]
                assert os.pwrite(fd, data, offset) == length
                truth[offset : offset + length] = data
            elif action < 0.5:
                mode = rng.choice((PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE))
                assert fallocate(fd, mode, offset, length) == 0
                truth[offset : offset + length] = bytes(length)
            else:
                assert os.pread(fd, length, offset) == truth[offset : offset + length]
        for offset in range(0, SIZE, 1 << 20):
            assert os.pread(fd, 1 << 20, offset) == truth[offset : offset + (1 << 20)]
    finally:
        os.close(fd)


@pytest.mark.parametrize("seed", range(3))
def test_any_byte_range_can_be_written_read_and_punched(instance: Instance, seed: int) -> None:
    use_byte_ranges(instance, seed, lambda: None)


def test_so_it_can_where_the_pages_are_on_a_tier(tmp_path: Path) -> None:
    """A write that begins and ends within two pages has to have both of them read."""
    mountpoint, options = tmp_path / "mnt", ("--size", "16M", "--tier", f"{tmp_path}/tier:64M")
    mountpoint.mkdir()
    with mounted_instance("tfiletier", mountpoint, *options) as mounted:
        use_byte_ranges(mounted, 4, lambda: ctl_ok("writeback", "tfiletier", "--all"))
        mounted.assert_healthy()


def fio(*job: str) -> dict[str, Any]:
    """Run one fio job that verifies with crc32c and fails at the first wrong byte."""
    result = run(
        "fio", "--name=job", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0",
        "--fallocate=none", "--buffer_compress_percentage=50", "--refill_buffers",
        "--output-format=json", *job,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    (report,) = json.loads(result.stdout[result.stdout.index("{") :])["jobs"]
    assert report["error"] == 0
    assert isinstance(report, dict)
    return report


@pytest.mark.parametrize("seed", [5, 6])
@pytest.mark.parametrize(
    "job",
    [
        ("--bsrange=4k-1M", "--rw=randrw"),
        ("--bsrange=4k-1M", "--rw=randrw", "--direct=1", "--ioengine=libaio", "--iodepth=16"),
        ("--bsrange=512-64k", "--blockalign=512", "--bs_unaligned=1", "--rw=randrw"),
        ("--bsrange=512-1M", "--blockalign=512", "--bs_unaligned=1", "--rw=write"),
    ],
    ids=["mixed", "mixed-async", "unaligned", "sequential"],
)
def test_fio_verifies_what_it_wrote(instance: Instance, job: tuple[str, ...], seed: int) -> None:
    before = instance.stats()["requests"]["read"]
    report = fio(f"--filename={instance.file}", "--size=16M", f"--randseed={seed}", *job)
    assert report["write"]["io_bytes"] > 0
    assert instance.stats()["requests"]["read"] > before, "nothing was verified"


def test_fio_trims_the_file_and_the_rest_is_untouched(instance: Instance) -> None:
    written = ("--filename=" + instance.file, "--bs=64k", "--size=16M", "--randseed=9")
    fio(*written, "--rw=write", "--do_verify=0")
    before = instance.stats()["pages"]["discarded_total"]
    fio(
        f"--filename={instance.file}", "--ioengine=falloc", "--rw=randtrim", "--bs=4k",
        "--offset=8M", "--size=4M", "--verify=0",
    )  # fmt: skip
    assert instance.stats()["pages"]["discarded_total"] - before == (4 << 20) // 4096
    for part in (("--offset=0", "--size=8M"), ("--offset=12M", "--size=4M")):
        fio(*written, *part, "--rw=read", "--verify_state_load=0")
    with Path(instance.file).open("rb") as file:
        file.seek(8 << 20)
        assert file.read(4 << 20) == bytes(4 << 20)


def test_fio_verifies_trims_and_writes_through_a_loop_device(instance: Instance) -> None:
    """fio's own trim-and-verify job needs a block device."""
    device = loop.attach(instance.file)
    try:
        report = fio(
            f"--filename={device}", "--size=16M", "--bsrange=4k-128k", "--rw=randtrimwrite",
            "--direct=1", "--allow_file_create=0",
        )  # fmt: skip
        assert report["trim"]["total_ios"] > 0
    finally:
        loop.detach(device, instance.file)


def test_fallocate_modes_that_are_not_discards_are_refused(instance: Instance) -> None:
    fd = os.open(instance.file, os.O_RDWR)
    try:
        collapse, insert = 0x08, 0x20
        for mode in (0, KEEP_SIZE, collapse, insert):
            assert fallocate(fd, mode, 0, 4096) == errno.EOPNOTSUPP
        assert fallocate(fd, PUNCH_HOLE | KEEP_SIZE, SIZE - 4096, 1 << 20) == 0
        assert fallocate(fd, ZERO_RANGE, SIZE - 4096, 1 << 20) == errno.EFBIG
    finally:
        os.close(fd)


def test_the_end_of_the_file_is_its_end(instance: Instance) -> None:
    fd = os.open(instance.file, os.O_RDWR)
    try:
        os.pwrite(fd, b"tail", SIZE - 4)
        assert os.pread(fd, 100, SIZE - 4) == b"tail"
        assert os.pread(fd, 100, SIZE) == b""
        with pytest.raises(OSError, match="File too large"):
            os.pwrite(fd, b"beyond", SIZE - 3)
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(fd, SIZE // 2)
        assert os.fstat(fd).st_size == SIZE
    finally:
        os.close(fd)


def test_requests_reach_the_lane_in_pieces_of_up_to_one_mib(instance: Instance) -> None:
    fd = os.open(instance.file, os.O_RDWR | os.O_DIRECT)
    try:
        buffer = mmap.mmap(-1, 4 << 20)
        before = instance.stats()["requests"]["write"]
        assert os.pwritev(fd, [buffer], 0) == 4 << 20
        assert instance.stats()["requests"]["write"] - before == 4
    finally:
        os.close(fd)


def test_names_attributes_and_statistics(instance: Instance) -> None:
    root = Path(instance.mountpoint)
    assert sorted(entry.name for entry in root.iterdir()) == ["stats.json", "swap"]
    assert (root / "swap").stat().st_mode & 0o7777 == 0o600
    assert json.loads((root / "stats.json").read_text())["checksum_errors"] == 0
    assert os.statvfs(root).f_bsize == 4096
    with pytest.raises(FileNotFoundError):
        (root / "other").stat()
    for change in (
        (root / "other").touch,
        (root / "swap").unlink,
        lambda: (root / "swap").rename(root / "swop"),
        (root / "dir").mkdir,
        lambda: (root / "swap").chmod(0o644),
    ):
        with pytest.raises(OSError, match=r"Function not implemented|not permitted"):
            change()
    (root / "swap").open("ab").close()
