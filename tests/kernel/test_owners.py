"""Known pages of two processes in two cgroups: every command tells the same, and the truth."""

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgroup import MemoryCgroup, MemoryCgroupUnavailableError
from machine import ROOT, Instance, ctl, ctl_json, ctl_ok, missing, swap_instance

LIMIT_BYTES = 256 << 20
FIRST = {"zero": 1000, "same": 2000, "text": 3000, "random": 4000}
SECOND = {"zero": 500, "same": 600, "text": 700, "random": 800}
HEADER_PAGES = 1
COUNTED = (
    "pages", "zero_pages", "same_pages", "pool_pages", "disk_pages", "kernel_pages", "pool_bytes",
    "disk_bytes",
)  # fmt: skip


class Known:
    """A process with known pages, and how many of each kind it has in swap."""

    def __init__(self, group: MemoryCgroup, counts: dict[str, int]) -> None:
        self.cgroup = group.path.name
        numbers = [str(count) for count in counts.values()]
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "tests/known_pages.py", group.procs_path, *numbers],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pages = self._read()

    def _read(self) -> dict[str, int]:
        assert self.process.stdout
        pages = json.loads(self.process.stdout.readline())
        assert isinstance(pages, dict)
        return pages

    def free_every(self, step: int) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"free {step}\n")
        self.process.stdin.flush()
        self.pages = self._read()

    def end(self) -> None:
        self.process.kill()
        with self.process:
            pass


@contextlib.contextmanager
def known(*all_counts: dict[str, int]) -> Iterator[list[Known]]:
    with contextlib.ExitStack() as stack:
        found = []
        try:
            for counts in all_counts:
                group = stack.enter_context(MemoryCgroup(LIMIT_BYTES))
                found.append(Known(group, counts))
                stack.callback(found[-1].end)
        except MemoryCgroupUnavailableError as error:
            missing(str(error))
        yield found


def pages_by_state(instance: Instance) -> dict[str, int]:
    """What every command that counts pages says; they have to say the same."""
    for _ in range(3):
        stored = instance.stats()["pages"]["stored_total"]
        with contextlib.suppress(AssertionError):
            return _pages_by_state(instance)
        # Another process of this machine may have swapped between two commands.
        if instance.stats()["pages"]["stored_total"] == stored:
            break
    return _pages_by_state(instance)


def _pages_by_state(instance: Instance) -> dict[str, int]:
    stats = instance.stats()["pages"]
    counted = Counter(page["state"] for page in instance.desc("0-256M"))
    reconciled = ctl_json("reconcile", instance.name)["pages"]
    mapped = ctl_json("map", instance.name)
    metrics = ctl_ok("metrics", instance.name)
    states = ("zero", "same", "pool", "disk")
    by_stats = {state: stats[state] for state in states}
    assert {state: counted[state] for state in states} == by_stats
    assert {state: reconciled[state] for state in states} == by_stats
    assert {state: mapped["pages"][state] for state in states} == by_stats
    for state in states:
        assert sum(cluster[state] for cluster in mapped["clusters"]) == by_stats[state]
        line = f'vswapfs_pages_{state}{{name="{instance.name}"}} {float(by_stats[state])}\n'
        assert line in metrics
    assert mapped["pool_bytes"] == instance.stats()["pool"]["live_bytes"]
    assert mapped["disk_bytes"] == instance.stats()["disk"]["live_bytes"]
    return by_stats


def check_owner(owner: dict[str, Any], process: Known) -> int:
    """One process's line against what its own page table says; returns its zeros held by us."""
    pages = process.pages
    assert owner["pages"] == sum(pages.values())
    assert owner["same_pages"] == pages["same"]
    assert owner["pool_pages"] + owner["disk_pages"] == pages["text"] + pages["random"]
    # Whether the kernel keeps zeros itself (Linux 6.12) or gives them to us.
    assert owner["zero_pages"] + owner["kernel_pages"] == pages["zero"]
    assert owner["zero_pages"] in (0, pages["zero"]), "either all or none"
    stored_bytes = owner["pool_bytes"] + owner["disk_bytes"]
    raw_bytes = pages["random"] * (4096 + 14)
    assert raw_bytes + pages["text"] * 1024 < stored_bytes < raw_bytes + pages["text"] * 1400
    return int(owner["zero_pages"])


KEPT_MAX_PAGES = 32


def test_all_commands_tell_the_truth_about_known_pages(tmp_path: Path) -> None:
    tier = f"{tmp_path}/tier:64M"
    with (
        swap_instance("towner", "--size", "256M", "--tier", tier) as instance,
        known(FIRST, SECOND) as processes,
    ):
        told = ctl_json("owners", "towner")
        assert told["device"] == instance.device
        by_pid = {owner["pid"]: owner for owner in told["processes"]}
        assert set(by_pid) == {known.process.pid for known in processes}
        zeros = sum(check_owner(by_pid[known.process.pid], known) for known in processes)
        by_cgroup = {Path(group["cgroup"]).name: group for group in told["cgroups"]}
        for process in processes:
            group, owner = by_cgroup[process.cgroup], by_pid[process.process.pid]
            assert group["pids"] == [process.process.pid]
            assert all(group[key] == owner[key] for key in set(group) - {"cgroup", "pids"})

        same = sum(known.pages["same"] for known in processes)
        stored = sum(known.pages["text"] + known.pages["random"] for known in processes)
        in_swap = sum(sum(known.pages.values()) for known in processes)
        assert in_swap == sum(FIRST.values()) + sum(SECOND.values())
        held = pages_by_state(instance)
        # Pages of other processes of this machine that were swapped out to here and are back in
        # RAM: they keep their slots. 2 of 12,602 were seen, twice; none while nobody else swaps.
        kept = held["pool"] - stored - HEADER_PAGES
        assert 0 <= kept <= KEPT_MAX_PAGES
        assert (held["zero"], held["same"], held["disk"]) == (zeros, same, 0)
        books = ctl_json("reconcile", "towner")
        assert books["used_pages"] == books["explained_pages"]
        assert 0 <= books["used_pages"] - in_swap <= KEPT_MAX_PAGES
        assert books["pages"]["stale"] == 0
        assert books["used"]["in_none"] <= books["used_pages"] - in_swap

        # The same on a tier; open segments stay in RAM.
        ctl_ok("writeback", "towner")
        moved = pages_by_state(instance)
        assert moved["disk"] > stored / 2
        assert kept <= moved["pool"] + moved["disk"] - stored - HEADER_PAGES <= KEPT_MAX_PAGES
        told = ctl_json("owners", "towner")
        stats = instance.stats()
        unnamed = told["not_attributed"]
        assert (
            told["attributed"]["disk_bytes"] + unnamed["disk_bytes"]
            == (stats["disk"]["live_bytes"])
        )
        assert (
            told["attributed"]["pool_bytes"] + unnamed["pool_bytes"]
            == (stats["pool"]["live_bytes"])
        )
        by_pid = {owner["pid"]: owner for owner in told["processes"]}
        for process in processes:
            check_owner(by_pid[process.process.pid], process)


def test_reconcile_accounts_for_every_slot_after_a_churn() -> None:
    """The kernel frees slots one by one and says nothing: of each cluster half is free."""
    with (
        swap_instance("tstale", "--size", "256M") as instance,
        known(FIRST, SECOND) as processes,
    ):
        held = sum(pages_by_state(instance).values())
        for process in processes:
            process.free_every(2)
        left = sum(sum(known.pages.values()) for known in processes)
        assert left == (sum(FIRST.values()) + sum(SECOND.values())) // 2
        books = ctl_json("reconcile", "tstale")
        pages = books["pages"]
        used = books["used_pages"]
        assert used == books["explained_pages"]
        assert 0 <= used - left <= KEPT_MAX_PAGES
        assert pages["held"] == held
        freed_here = held - HEADER_PAGES - (used - pages["unwritten"])
        assert pages["stale"] == freed_here > 5000
        assert books["clusters"]["mixed"] > 20
        not_in_tables = books["not_in_page_tables"]["pages"] - pages["stale"] - HEADER_PAGES
        assert 0 <= not_in_tables <= KEPT_MAX_PAGES
        assert books["not_in_page_tables"]["pool_bytes"] > 2000 * 4096
        by_pid = {owner["pid"]: owner for owner in ctl_json("owners", "tstale")["processes"]}
        for process in processes:
            check_owner(by_pid[process.process.pid], process)
        table = ctl_ok("reconcile", "tstale")
        assert f"{used} " in table
        assert "explained" in table


def test_two_areas_are_told_apart() -> None:
    """Slots have the same numbers in both; the first is also half empty where the other is full."""
    with (
        swap_instance("tfirst", "--size", "256M", "--priority", "10") as first,
        known(FIRST) as in_first,
        swap_instance("tsecond", "--size", "256M", "--priority", "20") as second,
        known(SECOND) as in_second,
    ):
        in_first[0].free_every(2)
        told = [ctl_json("owners", instance.name) for instance in (first, second)]
        assert len({each["swap_type"] for each in told}) == 2
        # Some pages of the second went to the first area: the kernel fills up a cluster that it has
        # begun, whatever the priorities.
        for process in (*in_first, *in_second):
            mine = [
                owner
                for each in told
                for owner in each["processes"]
                if owner["pid"] == process.process.pid
            ]
            check_owner({key: sum(owner[key] for owner in mine) for key in COUNTED}, process)
        for instance in (first, second):
            books = ctl_json("reconcile", instance.name)
            assert sum(books["used"].values()) == books["used_pages"]
            assert books["used"]["in_none"] <= KEPT_MAX_PAGES
            assert books["used_pages"] > 1000


def test_an_area_without_a_page_and_one_that_is_no_swap(tmp_path: Path) -> None:
    with swap_instance("tempty", "--size", "64M"):
        books = ctl_json("reconcile", "tempty")
        assert (books["used_pages"], books["explained_pages"]) == (0, 0)
        assert books["pages"]["held"] == books["pages"]["header"] == HEADER_PAGES
        told = ctl("owners", "tempty")
        assert told.stderr == "no process has a page in tempty\n"
        assert "1 of the swap header" in told.stdout
    gone = ctl("owners", "tempty")
    assert gone.returncode == 4
    assert "no such instance: tempty" in gone.stderr
