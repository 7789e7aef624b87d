"""`vswapctl owners`: whose pages these are, by process and by memory cgroup.

Owns the command, its columns, and the words for what cannot be attributed. Never guesses an owner:
a slot belongs to who names it in a page table.
"""

import time
from collections.abc import Collection, Sequence
from itertools import compress
from typing import Any, Final, NamedTuple

import click

from vswapfs.ctl import columns, instances, render, table
from vswapfs.ctl.options import RootCommand, json_option, name_argument
from vswapfs.ctl.reconcile import Account, account
from vswapfs.ctl.table import DISK, EMPTY, POOL, SAME, ZERO, Table
from vswapfs.units import format_size

_FIGURES: Final = (
    render.Heading("PAGES", right=True),
    render.Heading("ZERO", right=True),
    render.Heading("SAME", right=True),
    render.Heading("POOL", right=True),
    render.Heading("DISK", right=True),
    render.Heading("KERNEL", right=True),
    render.Heading("POOL-SIZE", right=True),
    render.Heading("DISK-SIZE", right=True),
    render.Heading("RATIO", right=True),
)
_PROCESSES: Final = (
    render.Heading("PID", right=True),
    *_FIGURES,
    render.Heading("CGROUP"),
    render.Heading("COMMAND"),
)
_CGROUPS: Final = (render.Heading("PROCESSES", right=True), *_FIGURES, render.Heading("CGROUP"))


class Tally(NamedTuple):
    """Pages by their state, and what their records take."""

    pages: int
    zero_pages: int
    same_pages: int
    pool_pages: int
    disk_pages: int
    kernel_pages: int
    """Slots that the kernel uses and never wrote: zeros that it keeps itself, or pages in
    flight."""
    pool_bytes: int
    disk_bytes: int

    @property
    def ratio(self) -> float | None:
        return table.ratio(self.pool_pages + self.disk_pages, self.pool_bytes + self.disk_bytes)

    def as_object(self) -> dict[str, Any]:
        return {**self._asdict(), "ratio": self.ratio}

    def cells(self) -> list[str]:
        return [
            *(str(count) for count in self[:6]),
            format_size(self.pool_bytes),
            format_size(self.disk_bytes),
            render.NOTHING if self.ratio is None else f"{self.ratio:.2f}",
        ]


def tally(found: Table, slots: Collection[int]) -> Tally:
    """What is at these slots of the area."""
    # Lists, which are the fastest here: a process may have a million slots.
    states, stored = found.states, found.stored_bytes
    codes = bytes([states[slot] for slot in slots])
    record_bytes = sum([stored[slot] for slot in slots])
    on_disk = compress(slots, codes.translate(columns.only(DISK)))
    disk_bytes = sum([stored[slot] for slot in on_disk])
    return Tally(
        pages=len(codes),
        zero_pages=codes.count(ZERO),
        same_pages=codes.count(SAME),
        pool_pages=codes.count(POOL),
        disk_pages=codes.count(DISK),
        kernel_pages=codes.count(EMPTY),
        pool_bytes=record_bytes - disk_bytes,
        disk_bytes=disk_bytes,
    )


def together(
    found: Table, parts: Sequence[tuple[Collection[int], Tally]], *, shared: bool
) -> Tally:
    """The tally of slots of several processes, each slot once; ``shared``: some may be in two."""
    if shared:
        return tally(found, set().union(*(slots for slots, _ in parts)))
    nothing = tally(found, ())
    return Tally(*map(sum, zip(nothing, *(each for _, each in parts), strict=True)))


@click.command(cls=RootCommand)
@name_argument
@json_option
def owners(name: str | None, as_json: bool) -> None:
    """Show whose pages these are: by process, and by memory cgroup.

    Found through the page tables of all processes. A slot that several name, as after a fork,
    counts for each of them, and once for their cgroup. KERNEL are slots in which there is nothing:
    Linux 6.12 and later keeps pages of zeros by itself, a page whose write was refused because the
    pool was full stays in RAM, and a page may be on its way.

    The other columns are pages by their state; POOL-SIZE and DISK-SIZE is what these take.

    Below are the pages that no page table names: shared memory and tmpfs, pages that are in RAM
    again, and slots that the kernel has freed without saying so; see vswapctl reconcile.

    \b
    Example:
      vswapctl owners --json | jq '.processes | max_by(.pool_bytes)'
    """
    name = instances.choose(name)
    began_s = time.monotonic()
    books = account(name)
    by_process = [
        (process, slots)
        for process in books.processes
        if books.swap_type is not None and (slots := process.slots(books.swap_type))
    ]
    found = books.table
    processes = [(process, slots, tally(found, slots)) for process, slots in by_process]
    shared = sum(figures.pages for _, _, figures in processes) > books.named.count(1)
    members: dict[str, list[int]] = {}
    parts: dict[str, list[tuple[Collection[int], Tally]]] = {}
    for process, slots, figures in processes:
        members.setdefault(process.cgroup, []).append(process.pid)
        parts.setdefault(process.cgroup, []).append((slots, figures))
    cgroups = [(path, together(found, each, shared=shared)) for path, each in parts.items()]
    everything = [(slots, figures) for _, slots, figures in processes]
    named = together(found, everything, shared=shared)
    processes.sort(key=lambda row: -row[2].pages)
    cgroups.sort(key=lambda row: -row[1].pages)
    if as_json:
        render.print_json(
            {
                "name": name,
                "device": books.device,
                "swap_type": books.swap_type,
                "processes": [
                    {
                        "pid": process.pid,
                        "command": process.command,
                        "cgroup": process.cgroup,
                        **figures.as_object(),
                    }
                    for process, _, figures in processes
                ],
                "cgroups": [
                    {"cgroup": path, "pids": members[path], **figures.as_object()}
                    for path, figures in cgroups
                ],
                "attributed": named.as_object(),
                "not_attributed": _not_attributed(books),
                "seconds": round(time.monotonic() - began_s, 3),
            }
        )
        return
    if processes:
        render.print_table(
            _PROCESSES,
            [
                (str(process.pid), *figures.cells(), process.cgroup, process.command)
                for process, _, figures in processes
            ],
        )
        click.echo()
        render.print_table(
            _CGROUPS,
            [(str(len(members[path])), *figures.cells(), path) for path, figures in cgroups],
        )
        click.echo()
    else:
        click.echo(f"no process has a page in {name}", err=True)
    render.print_lines(_remarks(books))


def _not_attributed(books: Account) -> dict[str, Any]:
    return {
        "header_pages": books.header_pages,
        "in_use_pages": books.unnamed_pages,
        "swap_cached_bytes": books.swap_cached_bytes,
        "stale_pages": books.stale_pages,
        "pool_bytes": books.unnamed_pool_bytes,
        "disk_bytes": books.unnamed_disk_bytes,
        "moved_meanwhile_pages": books.moved_pages,
    }


def _remarks(books: Account) -> list[str]:
    """A line for each kind of page that cannot be attributed."""
    lines = [
        f"in no page table: {books.unnamed_pages} pages in use (shared memory, tmpfs, or in RAM "
        f"again: the swap cache of all areas has {format_size(books.swap_cached_bytes)}), "
        f"{books.stale_pages} that the kernel has freed, {books.header_pages} of the swap header",
        f"these take {format_size(books.unnamed_pool_bytes)} of the pool and "
        f"{format_size(books.unnamed_disk_bytes)} on tiers",
    ]
    if books.moved_pages:
        lines.append(
            f"{books.moved_pages} pages came or went meanwhile: the figures may be off by as many"
        )
    return lines
