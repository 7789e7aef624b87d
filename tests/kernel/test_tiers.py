"""Pages on disk: every byte comes back, tiers come and go while swap is in use."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kernel_log
import pytest
import xxhash
from machine import (
    Instance,
    ctl,
    ctl_json,
    ctl_ok,
    kernel_log_mark,
    require_survival,
    run,
    swap_instance,
    wait_until,
)
from workloads import Peak, workload

MIB = 1 << 20


@contextlib.contextmanager
def file_tier(tmp_path: Path, size: str = "2G") -> Iterator[str]:
    """A file on the disk under the temporary directory, as PATH:SIZE."""
    path = tmp_path / "tier"
    yield f"{path}:{size}"
    path.unlink(missing_ok=True)


def tiers(instance: Instance) -> list[dict[str, Any]]:
    listed = ctl_json("tier", "list", instance.name)["tiers"]
    assert isinstance(listed, list)
    return listed


def wait_until_used(instance: Instance, path: Path) -> None:
    deadline_s = time.monotonic() + 60
    while not any(t["used_bytes"] for t in tiers(instance) if t["path"] == str(path)):
        assert time.monotonic() < deadline_s, "nothing is written there"
        time.sleep(0.05)


def test_workload_mostly_on_a_file_tier(tmp_path: Path) -> None:
    with (
        file_tier(tmp_path) as tier,
        swap_instance("ttier", "--size", "2G", "--pool-limit", "128M", "--tier", tier) as up,
    ):
        mark = kernel_log_mark()
        peak = Peak(up)
        peak.start()
        try:
            result = workload(256 * MIB, "1G", "zero:1,same:1,text:6,random:2", 20_000)
        finally:
            peak.stop()
        assert result["mismatch_count"] == 0
        assert peak.over_limit == [], "more RAM than the limit"
        assert peak.most["pages_on_disk"] > peak.most["pages_in_pool"], "most pages stayed in RAM"
        (listed,) = tiers(up)
        assert listed["state"] == "ok"
        assert listed["written_bytes"] > 200 * MIB
        assert listed["read_bytes"] > 200 * MIB
        assert "I/O error" not in "\n".join(kernel_log.since(mark))
        stats = up.stats()
        assert stats["refusals"]["pool_full"] == 0
        up.assert_healthy()
        assert ctl_ok("lost", "ttier") == "no page is lost\n"


def test_writes_are_large_and_in_order_on_a_block_device(tmp_path: Path) -> None:
    """What the kernel counts at the device, against what we say."""
    file = tmp_path / "disk"
    file.touch()
    run("truncate", "--size", "1G", file)
    device = run("losetup", "--find", "--show", "--direct-io=on", file).stdout.strip()
    try:
        with swap_instance(
            "tdev", "--size", "1G", "--pool-limit", "64M", "--tier", f"{device}:1G"
        ) as up:
            opened = disk_writes(device)
            assert workload(128 * MIB, "512M", "text:6,random:2", 5_000)["mismatch_count"] == 0
            written_bytes = tiers(up)[0]["written_bytes"]
        requests, sectors = (b - a for a, b in zip(opened, disk_writes(device), strict=True))
        assert written_bytes > 100 * MIB
        assert sectors * 512 / requests >= 512 * 1024
        assert sectors * 512 == pytest.approx(written_bytes, rel=0.03)
    finally:
        run("losetup", "--detach", device)
        file.unlink()


def disk_writes(device: str) -> tuple[int, int]:
    """Write requests completed and sectors written, as the kernel counts them."""
    fields = Path("/sys/block", Path(device).name, "stat").read_text().split()
    return int(fields[4]), int(fields[6])


def test_tiers_come_and_go_under_load(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with swap_instance(
        "tmove", "--size", "1G", "--pool-limit", "64M", "--tier", f"{first}:1G"
    ) as up:
        result: dict[str, int] = {}

        def load() -> None:
            result.update(workload(96 * MIB, "448M", "text:6,random:1", 30_000))

        loader = threading.Thread(target=load)
        loader.start()
        try:
            while tiers(up)[0]["written_bytes"] < 32 * MIB:
                assert loader.is_alive(), "nothing was written to the tier"
                time.sleep(0.05)
            for _ in range(2):
                ctl_ok("tier", "add", "tmove", f"{second}:1G")
                ctl_ok("tier", "remove", "tmove", str(first))
                assert not holds_a_tier(first)
                ctl_ok("tier", "add", "tmove", f"{first}:1G")
                ctl_ok("tier", "remove", "tmove", str(second))
        finally:
            loader.join()
        assert result["mismatch_count"] == 0
        assert [t["path"] for t in tiers(up)] == [str(first)]
        assert up.stats()["disk"]["segments_fetched_total"] > 0
        up.assert_healthy()
    first.unlink()
    second.unlink()


def holds_a_tier(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(7) == b"vswapfs"


def test_writeback_and_drain_by_hand(tmp_path: Path) -> None:
    with (
        file_tier(tmp_path, "512M") as tier,
        swap_instance("thand", "--size", "256M", "--pool-limit", "256M", "--tier", tier) as up,
    ):
        assert up.device
        assert run("swapoff", up.device).returncode == 0
        random = os.urandom(8 * MIB)
        pages = b"".join(random[at : at + 1024] + bytes(3072) for at in range(0, 8 * MIB, 1024))
        with Path(up.device).open("r+b", buffering=0) as device:
            device.write(pages)
            device.write(random)
        in_ram = up.stats()["pages"]["pool"]
        ctl_ok("writeback", "thand", "--incompressible")
        assert up.desc("32M")[0]["state"] == "disk"  # the first random page
        ctl_ok("writeback", "thand", "--all")
        (described,) = up.desc("0")
        assert (described["state"], described["verified"]) == ("disk", True)
        assert described["checksum"] == xxhash.xxh3_64_hexdigest(pages[:4096])
        assert {row["verified"] for row in up.desc("0-40M", "--state", "disk")} == {True}
        stats = up.stats()["pages"]
        assert stats["disk"] > 0.8 * in_ram
        assert stats["pool"] + stats["disk"] == in_ram
        run("blockdev", "--flushbufs", up.device)
        with Path(up.device).open("rb") as device:
            assert device.read(len(pages)) == pages
            assert device.read(len(random)) == random
        ctl_ok("drain", "thand")
        assert up.stats()["pages"]["disk"] == 0
        up.assert_healthy()


def test_restart_is_refused_where_a_fresh_worker_would_lose_a_tier(tmp_path: Path) -> None:
    require_survival()
    tier, away = tmp_path / "tier", tmp_path / "away"
    with swap_instance("tmoved", "--size", "64M", "--tier", f"{tier}:64M") as up:
        tier.rename(away)
        refused = ctl("restart", "tmoved")
        assert refused.returncode == 3
        assert f"{tier} is not the tier any more" in refused.stderr
        tier.write_bytes(b"another")
        assert ctl("restart", "tmoved").returncode == 3
        assert up.status()["worker_pid"] == up.pid
        # One that is killed has no choice; then it is told.
        wait_until("a standby", lambda: up.status()["standby_pid"])
        os.kill(up.pid, signal.SIGKILL)
        wait_until("another", lambda: ctl("tier", "list", "tmoved", "--json").returncode == 0)
        (listed,) = tiers(up)
        assert listed["state"] == "failing"
        assert "no tier" in listed["detail"]
        away.rename(tier)
        ctl_ok("restart", "tmoved")
        assert [listed["state"] for listed in tiers(up)] == ["ok"]
        up.assert_healthy()


def test_foreign_and_used_files_are_refused(tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_text("Dear reader" * 1000)
    for arguments, words in (
        ((f"{letter}:64M",), "not empty"),
        ((f"{tmp_path}:64M",), "neither a regular file nor a block device"),
        ((f"{tmp_path}/new:1M",), "at least"),
        ((f"{tmp_path}/none/new:64M",), "No such file"),
        ((f"{tmp_path}/new:3T",), "no space"),
        ((f"{tmp_path}/new:64M", "--tier", f"{letter}:64M"), "not empty"),
        ((f"{tmp_path}/new:64M", "--tier", f"{tmp_path}/new:64M"), "in use by another process"),
        (("/run/vswapfs/tier:64M",), "a tier is to take pages out of RAM"),
    ):
        result = ctl("on", "tforeign", "--size", "64M", "--tier", *arguments)
        assert result.returncode != 0
        assert words in result.stderr, result.stderr
    assert letter.read_text() == "Dear reader" * 1000
    assert list(tmp_path.iterdir()) == [letter]
    used = tmp_path / "used"
    with swap_instance("tforeign", "--size", "64M", "--tier", f"{used}:64M"):
        assert "in use" in ctl("on", "tother", "--size", "64M", "--tier", f"{used}:64M").stderr
    # The same instance takes its own old tier again, another one does not.
    assert "not empty" in ctl("on", "tother", "--size", "64M", "--tier", f"{used}:64M").stderr
    with swap_instance("tforeign", "--size", "64M", "--tier", f"{used}:64M"):
        pass
    overwrite = ("--tier", f"{used}:64M", "--tier-overwrite")
    with swap_instance("tother", "--size", "64M", *overwrite):
        pass
