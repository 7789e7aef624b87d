"""What a benchmark found: samples, their medians, tables, and a file that says how they came about.

    report = Report("device", DEVICE_BARS)
    report.how["zram"] = device.how
    with report.progress(step_count) as step:
        step("round 1, zram")
        report.add("4K read d1", "zram", round_number=1, value=4.5, unit="us")
    report.print()
    report.save()

Owns arithmetic and form. Never measures. Cases are shown in the order in which they came, peers in
the order of ``how``.
"""

import os
import platform
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import plots
from benchmarks.bars import Bar
from benchmarks.host import ROOT, BenchError, run

RESULTS: Final = ROOT / "docs/benchmarks"
OURS: Final = "vswapfs"
ROUNDS: Final = 5
"""Of every benchmark beside peers, also a quick one, which is smaller instead."""

VERSION_COMMANDS: Final = (
    ("fio", "--version"),
    ("qemu-storage-daemon", "--version"),
    ("nbdkit", "--version"),
    ("nbdfuse", "--version"),
    ("zramctl", "--version"),
    ("gcc", "--version"),
    ("redis-benchmark", "--version"),
)

console = Console()
if not console.is_terminal:
    console = Console(width=140)


class Sample(msgspec.Struct, frozen=True):
    """One figure of one peer, in one round."""

    case: str
    peer: str
    round: int
    value: float
    unit: str


class Report:
    """The samples of one command; ``bars`` is what was aimed at.

    Tables show vswapfs relative to each peer; with a ``reference``, each peer relative to that one.
    """

    def __init__(self, command: str, bars: Sequence[Bar], *, reference: str = "") -> None:
        self.command = command
        self.samples: list[Sample] = []
        self.how: dict[str, str] = {}
        """By peer, or any other name: the command that was run. Every peer must be in it."""
        self.failures: dict[str, str] = {}
        """By peer: why it was skipped, or given up half way."""
        self._bars = bars
        self._reference = reference
        self._began = datetime.now(UTC)
        self._load_before = os.getloadavg()[0]

    # -- collecting --------------------------------------------------------------------------

    @contextmanager
    def progress(self, step_count: int) -> Iterator[Callable[[str], None]]:
        """Show progress; call what is yielded at the begin of each step, with its name."""
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        shown = TextColumn("{task.description}")
        with Progress(*columns, shown, console=console, transient=True) as bar:
            task = bar.add_task(self.command, total=step_count, completed=-1)

            def step(name: str) -> None:
                bar.update(task, advance=1, description=f"{self.command}: {name}")

            yield step

    def add(self, case: str, peer: str, *, round_number: int, value: float, unit: str) -> None:
        self.samples.append(Sample(case, peer, round_number, value, unit))

    def give_up(self, peer: str, why: Exception) -> None:
        """Note why a peer is not measured, or no longer."""
        self.failures[peer] = str(why)
        console.print(f"{peer}: {why}", style="yellow", markup=False)

    # -- figures -----------------------------------------------------------------------------

    def cases(self) -> list[str]:
        return list(dict.fromkeys(sample.case for sample in self.samples))

    def peers(self) -> list[str]:
        found = dict.fromkeys(sample.peer for sample in self.samples)
        return sorted(found, key=list(self.how).index)

    def unit(self, case: str) -> str:
        return next(sample.unit for sample in self.samples if sample.case == case)

    def values(self, case: str, peer: str) -> list[float]:
        """One a round."""
        return list(self._by_round(case, peer).values())

    def median(self, case: str, peer: str) -> float | None:
        values = self.values(case, peer)
        return statistics.median(values) if values else None

    def ratio(self, case: str, ours: str, peer: str) -> float | None:
        """Median of ours over median of theirs."""
        own, other = self.median(case, ours), self.median(case, peer)
        return own / other if own is not None and other else None

    def ratios_by_round(self, case: str, ours: str, peer: str) -> list[float]:
        own, other = self._by_round(case, ours), self._by_round(case, peer)
        return [own[number] / other[number] for number in own if other.get(number)]

    def beside(self, bar: Bar) -> tuple[float | None, list[float]]:
        """What is to be held against the bar: of the medians, and of each round."""
        if not bar.peer:
            return self.median(bar.case, bar.ours), self.values(bar.case, bar.ours)
        return (
            self.ratio(bar.case, bar.ours, bar.peer),
            self.ratios_by_round(bar.case, bar.ours, bar.peer),
        )

    def _by_round(self, case: str, peer: str) -> dict[int, float]:
        return {s.round: s.value for s in self.samples if (s.case, s.peer) == (case, peer)}

    # -- tables ------------------------------------------------------------------------------

    def print(self) -> None:
        """Everything that is known, as tables."""
        console.print(self._medians_table())
        if any(self._bar_cells(bar) for bar in self._bars):
            console.print(self._bars_table())
        console.print(f"load average before: {self._load_before:.2f}", style="dim")
        for peer, how in self.how.items():
            console.print(f"{peer}: {how}", style="dim", markup=False, highlight=False)
        for peer, why in self.failures.items():
            console.print(f"{peer}: not measured to the end: {why}", style="yellow", markup=False)

    def _medians_table(self) -> Table:
        rounds = max((sample.round for sample in self.samples), default=0)
        relation = f"of that of {self._reference}" if self._reference else f"{OURS} / peer"
        table = Table(title=f"{self.command}: median of {rounds} rounds ({relation})")
        table.add_column("")
        table.add_column("unit")
        for peer in self.peers():
            table.add_column(peer, justify="right")
        for case in self.cases():
            cells = [self.cell(case, peer) for peer in self.peers()]
            table.add_row(case, self.unit(case), *cells)
        return table

    def cell(self, case: str, peer: str) -> str:
        """The median, and the ratio that goes with it."""
        median = self.median(case, peer)
        if median is None:
            return "-"
        over, under = (peer, self._reference) if self._reference else (OURS, peer)
        ratio = self.ratio(case, over, under) if over != under else None
        return shown(median) if ratio is None else f"{shown(median)} ({ratio:.2f})"

    def _bars_table(self) -> Table:
        table = Table(title=f"{self.command}: beside what was aimed at")
        table.add_column("")
        table.add_column("ratio of")
        for heading in ("ratio", "lowest round", "highest round", "bar"):
            table.add_column(heading, justify="right")
        for bar in self._bars:
            if cells := self._bar_cells(bar):
                table.add_row(*cells)
        return table

    def _bar_cells(self, bar: Bar) -> list[str]:
        """A row of the table; empty if it was not measured."""
        value, rounds = self.beside(bar)
        if value is None or not rounds:
            return []
        what = f"{bar.ours} / {bar.peer}" if bar.peer else bar.ours
        unit = "" if bar.peer else f" {self.unit(bar.case)}"
        figures = (value, min(rounds), max(rounds))
        limit = f"{bar.sense} {bar.limit:g}{unit}"
        return [bar.case, what, *(f"{figure:.2f}{unit}" for figure in figures), limit]

    # -- files -------------------------------------------------------------------------------

    def save(self) -> None:
        """Write docs/benchmarks/COMMAND.json, and a plot next to it."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.command}.json"
        encoded = msgspec.json.encode(self._document())
        path.write_bytes(msgspec.json.format(encoded, indent=1) + b"\n")
        plot = plots.draw(self, path.with_suffix(".svg"))
        console.print(f"written: {path.relative_to(ROOT)}, {plot.relative_to(ROOT)}")

    def _document(self) -> dict[str, Any]:
        return {
            "command": f"tools/bench {' '.join(sys.argv[1:])}",
            "began": self._began.isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": machine(),
            "load_average_before": self._load_before,
            "versions": versions(),
            "how": self.how,
            "failures": self.failures,
            "medians": {
                case: {
                    "unit": self.unit(case),
                    **{peer: self.median(case, peer) for peer in self.peers()},
                }
                for case in self.cases()
            },
            "bars": [{**bar._asdict(), "value": self.beside(bar)[0]} for bar in self._bars],
            "samples": self.samples,
        }


def rotated(peers: Iterable[str], count: int) -> list[str]:
    """The peers, so many of them moved to the end, so that another begins in each round."""
    names = list(peers)
    start = count % len(names) if names else 0
    return names[start:] + names[:start]


def shown(value: float) -> str:
    """Three digits, or all of them before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def commit() -> str:
    """The checkout's commit; with a + if files are changed."""
    try:
        found = run("git", "-C", str(ROOT), "rev-parse", "HEAD")
        changed = run("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    except BenchError as error:  # no git, or no checkout
        return str(error)
    return found + ("+" if changed else "")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "swap_readahead_page_cluster": int(Path("/proc/sys/vm/page-cluster").read_text()),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for argv in VERSION_COMMANDS:
        try:
            found[argv[0]] = run(*argv).splitlines()[0]
        except BenchError as error:
            found[argv[0]] = str(error)
    return found
