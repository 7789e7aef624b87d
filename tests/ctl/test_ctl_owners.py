"""owners and reconcile over a /proc of our own: what is read there, and what is made of it."""

import json
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ctl.conftest import Vswapctl
from ctl.fake_daemon import FakeDaemon, make_stats, make_status

from vswapfs.core.descriptor import CLUSTER_PAGES, filled, stored
from vswapfs.ctl import pagetables
from vswapfs.format.chunk import PLAIN_CHUNK_BYTES
from vswapfs.format.message import AskStats, AskStatus, Done
from vswapfs.format.table import Area, AskTable, Segment, Segments, TierPlace, Words

DEVICE = "/dev/loop3"
SWAPPED = 1 << 62
PRESENT = 1 << 63
START = 0x7F0000000000


def entry(slot: int, swap_type: int = 1) -> int:
    return SWAPPED | 1 << 55 | slot << 5 | swap_type


class Proc:
    """A tree as /proc."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        (path / "meminfo").write_text("MemTotal: 9 kB\nSwapCached:           40 kB\n")
        (path / "sys").mkdir()
        self.areas({"/dev/zram0": 0, DEVICE: 6})

    def areas(self, used_pages: dict[str, int]) -> None:
        lines = [f"{device} partition 4096 {n * 4} -2" for device, n in used_pages.items()]
        (self.path / "swaps").write_text("\n".join(["Filename Type Size Used Priority", *lines]))

    def process(self, pid: int, entries: Iterable[int], cgroup: str = "/work") -> None:
        directory = self.path / str(pid)
        directory.mkdir()
        entries = list(entries)
        swapped_kib = 4 * sum(1 for each in entries if each >> 62 == 1)
        (directory / "status").write_text(f"Name:\tx\nVmSwap:\t{swapped_kib:8} kB\nThreads:\t1\n")
        (directory / "comm").write_text(f"job{pid}\n")
        (directory / "cgroup").write_text(f"4:cpu,memory:{cgroup}\n0::/other\n")
        end = START + len(entries) * 4096
        mappings = (
            "400000-401000 r-xp 00000000 fe:00 7 /bin/x\nSize: 4 kB\nSwap: 0 kB\nVmFlags: rd\n"
            f"{START:x}-{end:x} rw-p 00000000 00:00 0\nSize: 9 kB\nSwap: {swapped_kib:>12} kB\n"
            "SwapPss:        0 kB\nVmFlags: rd wr\n"
        )
        (directory / "smaps").write_text(mappings)
        with (directory / "pagemap").open("wb") as pagemap:
            pagemap.seek(START // 4096 * 8)
            pagemap.write(array("Q", entries).tobytes())


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proc:
    monkeypatch.setattr(pagetables, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(pagetables, "writes_in_flight", lambda _device: 0)
    return Proc(tmp_path / "proc")


def answers() -> dict[type, list[Any]]:
    """Slots: 0 header, 1 zero, 2 same, 3 and 4 pool, 5 and 6 disk, 9 not in any page table."""
    words = array("Q", [0] * CLUSTER_PAGES)
    words[0], words[1], words[2] = stored(1, 64, 100), filled(0), filled(3)
    words[3], words[4] = stored(1, 200, 1024), stored(9, 64, 2048)  # 9: opened meanwhile
    words[5], words[6] = stored(2, 64, 512), stored(2, 600, 512)
    words[9] = stored(2, 1200, 300)
    segments = [
        Segment(1, True, 0, 0, 0, 2000, 1124, 2, 1, 0),
        Segment(2, False, 0, 1, 4, 1500, 1324, 3, 2, 9),
    ]
    area = Area(1000, 1 << 20, 8, [TierPlace(1, "/t", 6)], PLAIN_CHUNK_BYTES)
    return {
        AskStatus: [make_status("vswap0", loop_device=DEVICE)],
        AskTable: [area, Segments(segments), Words([0], words.tobytes()), Done()],
    }


def test_two_processes_that_share_a_slot(vswapctl: Vswapctl, proc: Proc) -> None:
    proc.process(10, [entry(1), entry(2), entry(3), PRESENT | 7, 0, entry(5)])
    proc.process(20, [entry(3), entry(4), entry(8)], "/work/sub")
    proc.process(30, [PRESENT | 9])
    proc.process(40, [entry(5, 31)])  # damaged memory, not swap
    with FakeDaemon("vswap0", answers()):
        told = json.loads(vswapctl("owners", "--json").stdout)
        table = vswapctl("owners").stdout.splitlines()
    assert told["swap_type"] == 1
    first, second = told["processes"]
    assert first == {
        "pid": 10, "command": "job10", "cgroup": "/work", "pages": 4, "zero_pages": 1,
        "same_pages": 1, "pool_pages": 1, "disk_pages": 1, "kernel_pages": 0, "pool_bytes": 1024,
        "disk_bytes": 512, "ratio": 5.33,
    }  # fmt: skip
    assert (second["pages"], second["pool_bytes"], second["kernel_pages"]) == (3, 3072, 1)
    assert [group["cgroup"] for group in told["cgroups"]] == ["/work", "/work/sub"]
    assert told["attributed"]["pages"] == 6, "slot 3 once"
    assert told["not_attributed"] == {
        "header_pages": 1, "in_use_pages": 0, "swap_cached_bytes": 40960, "stale_pages": 2,
        "pool_bytes": 100, "disk_bytes": 812, "moved_meanwhile_pages": 0,
    }  # fmt: skip
    assert table[1].split() == [
        "10",
        "4",
        "1",
        "1",
        "1",
        "1",
        "0",
        "1.0K",
        "512B",
        "5.33",
        "/work",
        "job10",
    ]
    assert "2 that the kernel has freed" in table[-2]


def test_the_account(vswapctl: Vswapctl, proc: Proc) -> None:
    proc.areas({DEVICE: 7})
    proc.process(10, [entry(slot) for slot in (1, 2, 3, 4, 8)])
    with FakeDaemon("vswap0", answers()):
        books = json.loads(vswapctl("reconcile", "--json").stdout)
        table = vswapctl("reconcile").stdout
    assert books["pages"] == {
        "zero": 1, "same": 1, "pool": 3, "disk": 3, "damaged": 0, "held": 8, "header": 1,
        "stale": 1, "unwritten": 1,
    }  # fmt: skip
    assert books["used"] == {"in_page_tables": 5, "in_none": 2}
    assert books["explained_pages"] == books["used_pages"] == 7
    assert books["clusters"] == {"held": 1, "mixed": 1}
    assert [line.split()[:2] for line in table.splitlines()[5:12]] == [
        ["=", "8"], ["-", "1"], ["-", "1"], ["+", "1"], ["=", "7"], ["7", "28.0K"], []
    ]  # fmt: skip


def test_zeros_that_are_in_ram_again(vswapctl: Vswapctl, proc: Proc) -> None:
    """The kernel uses more slots than there are in page tables, or here."""
    proc.areas({DEVICE: 9})
    proc.process(10, [entry(slot) for slot in (1, 2, 3, 4, 8)])
    with FakeDaemon("vswap0", answers()):
        books = json.loads(vswapctl("reconcile", "--json").stdout)
        table = vswapctl("reconcile").stdout
    assert (books["pages"]["stale"], books["pages"]["unwritten"]) == (0, 2)
    assert books["used"] == {"in_page_tables": 5, "in_none": 4}
    assert books["explained_pages"] == books["used_pages"] == 9
    assert "stale, at least: " in table


def test_pages_whose_write_was_refused_are_named(vswapctl: Vswapctl, proc: Proc) -> None:
    proc.process(10, [entry(slot) for slot in (1, 2, 3, 4, 8)])
    stats = make_stats()
    stats.values["refusals.pool_full"] = 0
    with FakeDaemon("vswap0", {**answers(), AskStats: [stats]}):
        assert "refused" not in vswapctl("reconcile").stdout
        stats.values["refusals.pool_full"] = 77
        told = vswapctl("reconcile").stdout
        assert json.loads(vswapctl("reconcile", "--json").stdout)["refused_writes"] == 77
    assert "zeros that the kernel keeps, or pages whose write was refused" in told
    assert "refused: 77 writes since the worker began, because the pool was full" in told


@pytest.mark.parametrize(
    ("areas", "swap_type"),
    [
        ({"/dev/zram0": 3, DEVICE: 6}, 4),  # in the order of the types seen, 2 and 4
        ({DEVICE: 6, "/dev/zram0": 3}, 2),
        ({DEVICE: 6, "/swapfile": 2, "/dev/zram0": 3}, 4),  # by what is held
        ({DEVICE: 0, "/dev/zram0": 3}, None),
    ],
)
def test_which_type_it_is(
    vswapctl: Vswapctl, proc: Proc, areas: dict[str, int], swap_type: int | None
) -> None:
    proc.areas(areas)
    proc.process(10, [entry(slot, 2) for slot in (3, 100, 101)])
    proc.process(20, [entry(slot, 4) for slot in (1, 2, 3, 4, 5, 6)])
    with FakeDaemon("vswap0", answers()):
        assert json.loads(vswapctl("owners", "--json").stdout)["swap_type"] == swap_type


def test_not_in_use_as_swap_slots_not_shown_and_a_dead_daemon(
    vswapctl: Vswapctl, proc: Proc
) -> None:
    with FakeDaemon("vswap0", answers()) as daemon:
        proc.process(10, [entry(0), entry(0)])
        hidden = vswapctl("owners")
        assert (hidden.exit_code, "does not show slots" in hidden.stderr) == (3, True)
        proc.areas({"/dev/zram0": 3})
        for command in ("owners", "reconcile"):
            result = vswapctl(command)
            assert result.exit_code == 4
            assert "vswap0 is not in use as swap" in result.stderr
        daemon.answers[AskStatus] = []
        assert vswapctl("reconcile").exit_code == 4
        daemon.die()
    for command in ("owners", "reconcile", "map", "trace"):
        dead = vswapctl(command)
        assert (dead.exit_code, "vswap0 is dead" in dead.stderr) == (4, True)
        nobody = vswapctl(command, "nobody")
        assert (nobody.exit_code, "no such instance: nobody" in nobody.stderr) == (4, True)
