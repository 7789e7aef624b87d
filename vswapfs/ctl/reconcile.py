"""`vswapctl reconcile`: the kernel's figure in /proc/swaps explained by what we hold.

Owns the account of an area: every slot that the kernel uses or that we hold is in exactly one line
of it. Never corrects anything. Two figures cannot be read and follow from the others, slots in use
that no page table names, and stale slots; what they rest on is said where they are computed.
"""

from typing import Any, Final, NamedTuple

import click

from vswapfs.core.descriptor import CLUSTER_PAGES, CLUSTER_SHIFT
from vswapfs.ctl import client, columns, instances, pagetables, render, table
from vswapfs.ctl.options import RootCommand, json_option, name_argument
from vswapfs.ctl.pagetables import Process
from vswapfs.ctl.table import DAMAGED, DISK, POOL, SAME, ZERO, Table
from vswapfs.format.message import AskStats, Stats
from vswapfs.units import PAGE_BYTES, format_size

_HEADINGS: Final = (
    render.Heading(""),
    render.Heading("PAGES", right=True),
    render.Heading("SIZE", right=True),
    render.Heading("WHAT"),
)
_ALL_BITS: Final = bytes([0, 0xFF]) + bytes(254)


class Account(NamedTuple):
    """Everything that can be known of an area's slots. All counts are of slots."""

    device: str
    swap_type: int | None
    """None: no page table names a slot of the area."""
    table: Table
    processes: list[Process]
    named: bytearray
    """For each slot 1 if a page table names it."""
    used_pages: int
    """What the kernel counts as used."""
    header_pages: int
    """Of the swap header; mkswap wrote it, and it is never freed."""
    named_held_pages: int
    """In a page table, and we hold the page."""
    named_unwritten_pages: int
    """In a page table, and we hold nothing: zeros that the kernel keeps itself (Linux 6.12), pages
    whose write we refused, which stay in RAM, pages in zswap, or in flight."""
    writes_in_flight: int
    """Requests, at the end."""
    unnamed_pool_bytes: int
    """Records of pages that no page table names, in the pool."""
    unnamed_disk_bytes: int
    clusters: int
    """That hold something."""
    stale_clusters: int
    """Of these, clusters with both pages in page tables and pages in none."""
    swap_cached_bytes: int
    """Of all swap areas."""
    moved_pages: int
    """Stored or discarded while all this was read."""
    refused_writes: int
    """Since the worker's start, because the pool was full and no tier took more."""

    @property
    def held_pages(self) -> int:
        return self.table.page_count - self.table.states[: self.table.page_count].count(0)

    @property
    def unnamed_pages(self) -> int:
        """In use, and in no page table: of shared memory, or in the swap cache."""
        return max(0, self.used_pages - self.named_held_pages - self.named_unwritten_pages)

    @property
    def unnamed_held_pages(self) -> int:
        """Held, and in no page table; without the header."""
        return self.held_pages - self.header_pages - self.named_held_pages

    @property
    def stale_pages(self) -> int:
        """Held, but freed by the kernel: at least so many. All ``unnamed_pages`` are taken to be
        held; of zeros that the kernel keeps itself, and that are in RAM again, as many too few are
        counted here."""
        return max(0, self.unnamed_held_pages - self.unnamed_pages)

    @property
    def unwritten_pages(self) -> int:
        """In use, but not held: those in page tables, and what is left of those in none."""
        return self.named_unwritten_pages + max(0, self.unnamed_pages - self.unnamed_held_pages)


def account(name: str) -> Account:
    """Look at the instance, the page tables and the kernel's figure, in this order.

    Raises InstanceError if the instance is not in use as swap, HostError if page tables do not show
    slots, and what client.ask raises.
    """
    device = pagetables.device_of(name)
    before = _changes(client.ask(name, AskStats(), Stats).values)
    found = table.fetch(name)
    processes = pagetables.scan()
    used_pages = pagetables.used_pages(device)
    in_flight = pagetables.writes_in_flight(device)
    cached_bytes = pagetables.swap_cached_bytes()
    values = client.ask(name, AskStats(), Stats).values
    moved_pages = max(0, _changes(values) - before)  # a successor counts from 0
    held = bytes(found.states.translate(columns.NONZERO))
    swap_type = pagetables.type_of(device, processes, held)
    named = bytearray(len(held))
    if swap_type is not None:
        for process in processes:
            for slot in process.slots(swap_type):
                named[slot] = 1
    named_held = columns.both(named, held)
    unnamed = columns.without(held, named)
    unnamed_states = columns.both(found.states, unnamed.translate(_ALL_BITS))
    clusters = found.words
    return Account(
        device=device,
        swap_type=swap_type,
        table=found,
        processes=processes,
        named=named,
        used_pages=used_pages,
        header_pages=unnamed[0],
        named_held_pages=named_held.count(1),
        named_unwritten_pages=named.count(1) - named_held.count(1),
        writes_in_flight=in_flight,
        unnamed_pool_bytes=found.bytes_in(POOL, unnamed_states),
        unnamed_disk_bytes=found.bytes_in(DISK, unnamed_states),
        clusters=len(clusters),
        stale_clusters=sum(1 for cluster in clusters if _is_mixed(cluster, named, unnamed)),
        swap_cached_bytes=cached_bytes,
        moved_pages=moved_pages,
        refused_writes=int(values["refusals.pool_full"]),
    )


def _is_mixed(cluster: int, named: bytearray, unnamed: bytes) -> bool:
    first = cluster << CLUSTER_SHIFT
    both = (1 in column[first : first + CLUSTER_PAGES] for column in (named, unnamed))
    return all(both)


def _changes(values: dict[str, int | float]) -> int:
    return int(values["pages.stored_total"]) + int(values["pages.discarded_total"])


@click.command(cls=RootCommand)
@name_argument
@json_option
def reconcile(name: str | None, as_json: bool) -> None:
    """Explain the kernel's figure of used swap by the pages that are held here.

    The kernel frees slots one by one and tells only of clusters of 512 in which all are free. Until
    then, or until they are used again, pages in freed slots are held on: they are stale. Other
    slots are used though nothing is held for them: Linux 6.12 and later keeps pages of zeros by
    itself, and pages whose write was refused, because the pool was full, stay in RAM. The rest has
    to match.

    \b
    Example:
      vswapctl reconcile vswap0
    """
    name = instances.choose(name)
    books = account(name)
    if as_json:
        render.print_json(_as_object(name, books))
        return
    pages = [books.table.pages(state) for state in (ZERO, SAME, POOL, DISK, DAMAGED)]
    at_least = ", at least" if books.unnamed_pages else ""
    rows = [
        ("", pages[0], "zero: pages of zeros, kept as a marker"),
        ("+", pages[1], "same-filled: kept as a marker"),
        ("+", pages[2], "pool: in RAM"),
        ("+", pages[3], "disk: on tiers"),
        *([("+", pages[4], "damaged: what is there cannot be told")] if pages[4] else []),
        ("=", books.held_pages, f"held by {name}"),
        ("-", books.header_pages, "the swap header, which does not count as used"),
        ("-", books.stale_pages, f"stale{at_least}: freed by the kernel, which has not said so"),
        ("+", books.unwritten_pages, f"used, but not here: {_not_here(books)}"),
        ("=", _explained(books), "explained"),
        ("", books.used_pages, f"used, as /proc/swaps has it for {books.device}"),
    ]
    render.print_table(
        _HEADINGS,
        [(sign, str(count), format_size(count * PAGE_BYTES), what) for sign, count, what in rows],
    )
    named_pages = books.named_held_pages + books.named_unwritten_pages
    lines = [
        "",
        f"used: {named_pages} in page tables, {books.unnamed_pages} in none (shared memory, tmpfs, "
        f"or in RAM again: the swap cache has {format_size(books.swap_cached_bytes)})",
        f"stale, in none, or header: {books.unnamed_held_pages + books.header_pages} pages take "
        f"{format_size(books.unnamed_pool_bytes)} of the pool and "
        f"{format_size(books.unnamed_disk_bytes)} on tiers",
        f"clusters: {books.clusters} of 512 slots hold something, {books.stale_clusters} of them "
        "both pages in page tables and others",
    ]
    if books.refused_writes:
        lines.append(
            f"refused: {books.refused_writes} writes since the worker began, because the pool was "
            "full and no tier took more: their pages stay in RAM, their slots count as used"
        )
    if books.writes_in_flight or books.moved_pages:
        lines.append(
            f"under load: {books.writes_in_flight} writes in flight; {books.moved_pages} pages "
            "came or went meanwhile, and figures may be off by as many"
        )
    render.print_lines(lines)


def _not_here(books: Account) -> str:
    zeros = "zeros that the kernel keeps"
    return f"{zeros}, or pages whose write was refused" if books.refused_writes else zeros


def _explained(books: Account) -> int:
    return books.held_pages - books.header_pages - books.stale_pages + books.unwritten_pages


def _as_object(name: str, books: Account) -> dict[str, Any]:
    found = books.table
    return {
        "name": name,
        "device": books.device,
        "swap_type": books.swap_type,
        "used_pages": books.used_pages,
        "explained_pages": _explained(books),
        "pages": {
            "zero": found.pages(ZERO),
            "same": found.pages(SAME),
            "pool": found.pages(POOL),
            "disk": found.pages(DISK),
            "damaged": found.pages(DAMAGED),
            "held": books.held_pages,
            "header": books.header_pages,
            "stale": books.stale_pages,
            "unwritten": books.unwritten_pages,
        },
        "used": {
            "in_page_tables": books.named_held_pages + books.named_unwritten_pages,
            "in_none": books.unnamed_pages,
        },
        "not_in_page_tables": {
            "pages": books.held_pages - books.named_held_pages,
            "pool_bytes": books.unnamed_pool_bytes,
            "disk_bytes": books.unnamed_disk_bytes,
        },
        "clusters": {"held": books.clusters, "mixed": books.stale_clusters},
        "swap_cached_bytes": books.swap_cached_bytes,
        "writes_in_flight": books.writes_in_flight,
        "refused_writes": books.refused_writes,
        "moved_meanwhile_pages": books.moved_pages,
    }
