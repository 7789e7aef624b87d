"""What the demo looks like: lines that stay, a bar that moves, and tables of figures.

Owns the layout, 80 columns wide. Never asks for a figure: everything shown is handed in, as
vswapctl and the workload print it. In a log it looks as on a terminal, but for the bar.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vswapfs.units import PAGE_BYTES, format_size

PHASES: Final = {
    "fill": "fill",
    "verify": "verify in order",
    "touch": "touch at random",
    "final": "verify again",
}
STATES: Final = {
    "zero": "zero, a marker",
    "same": "same-filled, a marker",
    "pool": "compressed in RAM",
    "raw": "incompressible, raw in RAM",
    "disk": "on disk",
}
SHOWN_PER_STATE: Final = 2

Figures = dict[str, Any]
"""An object of JSON."""


def count_states(stats: Figures) -> dict[str, int]:
    """Pages by state, with the raw ones apart from the compressed ones."""
    pages = stats["pages"]
    raw = pages.get("incompressible", 0)
    counted = {state: pages[state] for state in ("zero", "same", "disk")}
    counted |= {"pool": pages["pool"] - raw, "raw": raw}
    return {state: counted[state] for state in STATES}


class Screen:
    """Lines that stay, the same on a terminal and in a log; and on a terminal a bar that moves."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.failure: OSError | None = None
        """Why nothing can be printed. It is no reason to leave anything set up."""
        self._progress: Figures = {}
        self._latest_stats: Callable[[], Figures | None] = lambda: None

    def _print(self, *what: RenderableType, **how: Any) -> None:
        try:
            self.console.print(*what, **how)
        except OSError as error:
            self.failure = error

    def say(self, text: str, style: str = "") -> None:
        self._print(text, style=style, markup=False, soft_wrap=not self.console.is_terminal)

    def head(self, text: str) -> None:
        self._print()
        self._print(text, style="bold cyan", markup=False)

    def command(self, words: str, said: str) -> None:
        self.say(f"$ vswapctl {words}", "bold")
        for line in said.splitlines():
            self.say(f"  {line}", "dim")

    def table(self, title: str, table: Table) -> None:
        self.head(title)
        self._print(Padding(table, (0, 0, 0, 2), expand=False))

    @contextlib.contextmanager
    def live(self, latest_stats: Callable[[], Figures | None]) -> Iterator[None]:
        """Show the bar, and below it the stats, as long as the context lasts."""
        self._latest_stats = latest_stats
        # Transient: in a log it prints nothing at all.
        with Live(
            console=self.console,
            get_renderable=self._render,
            refresh_per_second=5,
            transient=True,
        ):
            yield

    def progress(self, line: Figures) -> None:
        """Show a line of progress from the workload; the last one of a phase stays."""
        self._progress = line
        if line["done_bytes"] == line["total_bytes"] and line["phase"] in PHASES:
            self.say(
                f"  {PHASES[line['phase']]:16} {format_size(line['total_bytes']):>5}"
                f" {line['seconds']:7.2f} s  {rate(line)}"
            )

    def _render(self) -> Group:
        line = self._progress
        if line.get("phase") not in PHASES:
            return Group()
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            f"  {PHASES[line['phase']]:16}",
            ProgressBar(line["total_bytes"], line["done_bytes"], width=34),
            f"{line['done_bytes'] * 100 // line['total_bytes']:3} %",
            rate(line),
        )
        stats = self._latest_stats()
        return Group(bar, Text(f"  {one_line(stats)}" if stats else "", style="dim"))


def rate(line: Figures) -> str:
    if not line["seconds"]:
        return ""
    return f"{line['done_bytes'] / line['seconds'] / 1e6:5.0f} MB/s"


def one_line(stats: Figures) -> str:
    """Pages by state and the pool, in less than 80 columns."""
    states = "  ".join(f"{name} {pages}" for name, pages in count_states(stats).items() if pages)
    pool = stats["pool"]
    return (
        f"pages: {states or 'none'}  |  pool {format_size(pool['used_bytes'])}"
        f" for {format_size(pool['original_bytes'])}"
    )


def new_table(*headings: str) -> Table:
    """Make a table whose columns are to the right, but for headings that begin with <."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        header_style="bold",
    )
    for heading in headings:
        left = heading.startswith("<")
        table.add_column(heading.lstrip("<"), justify="left" if left else "right", no_wrap=True)
    return table


def rates_table(phases: list[Figures]) -> Table:
    table = new_table("<phase", "pages", "seconds", "MB/s", "us a page")
    for phase in phases:
        table.add_row(
            PHASES[phase["phase"]],
            f"{phase['bytes'] // PAGE_BYTES:,}",
            f"{phase['seconds']:.2f}",
            f"{phase['mb_per_s']:.0f}",
            f"{phase['us_per_page']:.1f}",
        )
    return table


def states_table(stats: Figures) -> Table:
    counted = count_states(stats)
    total = sum(counted.values())
    table = new_table("<where pages are", "pages", "share", "bytes")
    for state, pages in counted.items():
        if state == "zero" and not pages:
            # Since 6.12 it remembers them in a bitmap and never writes them.
            table.add_row("zero: this kernel keeps them itself", "0", "", "")
            continue
        table.add_row(
            STATES[state], f"{pages:,}", f"{pages / total:.0%}", format_size(pages * PAGE_BYTES)
        )
    table.add_section()
    table.add_row("all", f"{total:,}", "100%", format_size(total * PAGE_BYTES))
    return table


def memory_table(stats: Figures, status: Figures, daemon_bytes: int) -> Table:
    held_bytes = sum(count_states(stats).values()) * PAGE_BYTES
    pool = stats["pool"]
    table = new_table("<memory", "value", "<")
    table.add_row("swapped out", format_size(held_bytes), "")
    table.add_row("RAM of the pool", format_size(pool["used_bytes"]), "records and their headers")
    table.add_row("  of it live", f"{pool['live_bytes'] / pool['used_bytes']:.0%}", "density")
    table.add_row("metadata", format_size(stats["metadata_bytes"]), "tables and record headers")
    table.add_row("ratio", f"{status['ratio']:.2f}", "of the pages in the pool, raw ones included")
    table.add_row(
        "saved",
        format_size(status["saved_bytes"]),
        f"{status['saved_bytes'] / held_bytes:.0%} of what was swapped out",
    )
    table.add_row("daemon", format_size(daemon_bytes), "resident, the pool included")
    return table


def descriptors_table(descriptors: list[Figures]) -> Table:
    table = new_table("offset", "<state", "<place or fill", "stored", "ratio", "<checksum", "<ok")
    for each in descriptors:
        if "segment" in each:
            place = f"{each['segment']}:{each['segment_offset']}"
        else:
            place = each.get("fill", "")
        ratio = each.get("ratio")
        table.add_row(
            f"{each['offset']:#x}",
            each["state"],
            place,
            str(each.get("stored_bytes", 0)),
            f"{ratio:.2f}" if ratio else "",
            each.get("checksum", ""),
            {True: "yes", False: "NO"}.get(each.get("verified", ""), ""),
        )
    return table


def choose_descriptors(descriptors: list[Figures]) -> list[Figures]:
    """Return the first few of each state, raw pages apart from compressed ones."""
    chosen: dict[tuple[str, str], list[Figures]] = {}
    for each in descriptors:
        group = chosen.setdefault((each["state"], each.get("codec", "")), [])
        if each["state"] != "empty" and len(group) < SHOWN_PER_STATE:
            group.append(each)
    return sorted(itertools.chain(*chosen.values()), key=lambda each: int(each["offset"]))
