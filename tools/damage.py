"""Damage experiments: does the checksum notice, and what would be let through without it.

Owns the command line and the tables. docs/checksums.md has what they printed.
"""

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Final

import click
import msgspec
from damage_cost import measure
from damage_image import image as image_commands
from damage_kinds import (
    KINDS,
    SEGMENT_BYTES,
    SUPERBLOCK_KINDS,
    SUPERBLOCK_SLOT,
    Contents,
    Image,
    NoSuchDamageError,
    damaged_states,
    draw,
    place_bytes,
    superblock_contents,
)
from damage_lab import MIXED, SAME_ORDER, Lab, Recipe, Tally
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from vswapfs.backing.claim import TIER_MIN_BYTES, claim
from vswapfs.backing.file import FileBacking
from vswapfs.errors import HostError, TierFormatError, VswapError
from vswapfs.format.tier import (
    SEGMENT_HEADER_BYTES,
    SUPERBLOCK_BYTES,
    SUPERBLOCK_COPY_OFFSET,
    Superblock,
    choose,
    is_empty,
)
from vswapfs.format.tier_walk import VALID, walk_segment

ROUND_CASES: Final = 50
"""Cases of each kind on one base image; then another is made, as there are few segments in one."""
INJECT_SEGMENTS: Final = 8
COLUMNS: Final = (
    "cases", "pages affected", "detected", "harmless", "undetected",
    "crc32 undetected", "none undetected", "seen by scrub", "seen by log check",
)  # fmt: skip

progress_console = Console(stderr=True)


@click.group()
def main() -> None:
    """Damage tiers and images on purpose and count what is noticed."""


main.add_command(image_commands)


@contextmanager
def errors_told() -> Iterator[None]:
    """End a command with what a person can do about it."""
    try:
        yield
    except (VswapError, NoSuchDamageError) as error:
        raise click.ClickException(str(error)) from None


# -- run --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Round:
    """Some cases of some kinds on an image of their own."""

    recipe: Recipe
    seed: int
    kinds: tuple[str, ...]
    first: int
    count: int


def rounds_of(recipe: Recipe, kinds: Sequence[str], cases: int, seed: int) -> list[Round]:
    return [
        Round(recipe, seed, tuple(kinds), first, min(ROUND_CASES, cases - first))
        for first in range(0, cases, ROUND_CASES)
    ]


def run_round(
    todo: Round, file: str | None = None, each: Callable[[], None] = lambda: None
) -> dict[str, Tally]:
    """By kind. The image depends on the seed and on the number of the first case only."""
    recipe, seed = todo.recipe, todo.seed * 1_000_003 + todo.first
    backing = None
    if file:
        backing = FileBacking.open(file, recipe.tier_bytes, overwrite=False, owner="damage")
    try:
        lab = Lab(recipe, seed, backing)
        found = {kind: Tally() for kind in todo.kinds}
        for kind in todo.kinds:
            for index in range(todo.first, todo.first + todo.count):
                found[kind].add(lab.case(kind, index))
                each()
    finally:
        if backing:
            backing.close()
    return found


def run_rounds(
    todo: list[Round], file: str | None, processes: int, progress: Progress
) -> dict[str, Tally]:
    tallies = {kind: Tally() for kind in todo[0].kinds}
    task = progress.add_task("cases", total=sum(each.count * len(each.kinds) for each in todo))

    def add(found: dict[str, Tally]) -> None:
        for kind, tally in found.items():
            tallies[kind].add(tally)

    if file or processes == 1:
        for each in todo:
            add(run_round(each, file, lambda: progress.advance(task)))
        return tallies
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for done in as_completed([pool.submit(run_round, each) for each in todo]):
            found = done.result()
            add(found)
            progress.advance(task, sum(tally.cases for tally in found.values()))
    return tallies


@main.command()
@click.option(
    "--cases", type=click.IntRange(1), default=1000, show_default=True, help="Of each kind."
)
@click.option("--seed", default=1, show_default=True)
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="All if not given.")
@click.option(
    "--same-order",
    is_flag=True,
    help="Incompressible pages rewritten in the same order into the same slots: the worst case.",
)
@click.option(
    "--file", help="Have the tier in this file, which stays, undamaged, to try inject on."
)
@click.option(
    "--processes", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="one a CPU"
)
@click.option("--json", "as_json", is_flag=True)
def run(
    cases: int,
    seed: int,
    kinds: tuple[str, ...],
    same_order: bool,
    file: str | None,
    processes: int,
    as_json: bool,
) -> None:
    """Do one damage at a time to a tier of known pages, load them all, and compare.

    Exit code 1 if wrong bytes were returned.
    """
    recipe = SAME_ORDER if same_order else MIXED
    began = time.monotonic()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    chosen = [kind for kind in KINDS if not kinds or kind in kinds]
    with errors_told(), Progress(*columns, console=progress_console, transient=True) as progress:
        tallies = run_rounds(rounds_of(recipe, chosen, cases, seed), file, processes, progress)
    seconds = time.monotonic() - began
    if as_json:
        value = {
            "seed": seed,
            "same_order": same_order,
            "seconds": round(seconds, 1),
            "kinds": {kind: asdict(tally) for kind, tally in tallies.items()},
        }
        click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))
    else:
        order = " --same-order" if same_order else ""
        total = sum(tally.cases for tally in tallies.values())
        print_table(
            ("kind", *COLUMNS),
            [row(kind, tally) for kind, tally in tallies.items()],
            f"{total} cases, seed {seed}{order}, {seconds:.0f} s",
        )
    if any(tally.undetected for tally in tallies.values()):
        sys.exit(1)


def row(kind: str, tally: Tally) -> list[str]:
    if kind in SUPERBLOCK_KINDS:
        return [kind, str(tally.cases), *"-" * (len(COLUMNS) - 2), str(tally.log_check_cases)]
    values = (
        tally.cases, tally.affected, tally.detected, tally.harmless, tally.undetected,
        tally.crc32_undetected, tally.none_undetected, tally.scrub_cases, tally.log_check_cases,
    )  # fmt: skip
    return [kind, *map(str, values)]


def print_table(headings: Sequence[str], rows: list[list[str]], title: str) -> None:
    """For people on a terminal; elsewhere as it goes into docs/."""
    if not sys.stdout.isatty():
        click.echo(f"{title}\n")
        click.echo(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
        for cells in rows:
            click.echo(f"| {' | '.join(cells)} |")
        return
    table = Table(title=title)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for cells in rows:
        table.add_row(*cells)
    Console().print(table)


# -- inject -----------------------------------------------------------------------------------


@main.command()
@click.argument("path")
@click.option("--kind", type=click.Choice(KINDS), required=True)
@click.option("--seed", default=1, show_default=True)
def inject(path: str, kind: str, seed: int) -> None:
    """Damage the tier in a file or device that is not in use, for good, and say where.

    See then: vswapctl log check PATH. What lay in a slot before is not known here: replay is
    refused, a torn write ends in zeros, and misplace leaves the segment in its own slot too.
    """
    with errors_told():
        # As a daemon would: whoever has the tier is noticed, and none can take it meanwhile.
        if not os.path.exists(path):  # noqa: PTH110
            raise HostError(f"open {path}", "no such file or device")
        fd = claim(path, TIER_MIN_BYTES, overwrite=True, owner="").fd
        try:
            rng = random.Random(f"{seed}/{kind}")
            image = image_at_rest(path, fd, rng)
            damage = draw(kind, image, rng)
            found = damaged_states(damage, image)
            click.echo(f"{path}: {damage.text}")
            for operation in damage.operations:
                start, end = operation.offset, operation.offset + operation.length_bytes
                new = memoryview(found[operation.slot])[start:end]
                old = memoryview(image[operation.slot].states[0])[start:end]
                changed = [at for at in range(len(new)) if new[at] != old[at]]
                at = place_bytes(operation.slot, start)
                os.pwrite(fd, new, at)
                if changed:
                    click.echo(
                        f"  {len(changed)} of the {len(new)} bytes at {at} are other ones now, "
                        f"the first at {at + changed[0]}, the last at {at + changed[-1]}"
                    )
            os.fsync(fd)
        except OSError as error:
            raise HostError(f"damage {path}", error.strerror or str(error)) from None
        finally:
            os.close(fd)


def image_at_rest(path: str, fd: int, rng: random.Random) -> Image:
    """The superblock and a few undamaged segments. Raises TierFormatError."""
    first = os.pread(fd, SEGMENT_BYTES, 0)
    copy = first[SUPERBLOCK_COPY_OFFSET:][:SUPERBLOCK_BYTES]
    superblock, _findings = choose(first[:SUPERBLOCK_BYTES], copy)
    if superblock.segment_bytes != SEGMENT_BYTES:
        raise TierFormatError(f"{path}: segments of {superblock.segment_bytes} bytes")
    image: Image = {SUPERBLOCK_SLOT: superblock_contents([first])}
    slots = list(range(superblock.slot_count))
    rng.shuffle(slots)
    for slot in slots:
        if len(image) > INJECT_SEGMENTS:
            break
        if contents := _undamaged(fd, superblock, slot):
            image[slot] = contents
    return image


def _undamaged(fd: int, superblock: Superblock, slot: int) -> Contents | None:
    if is_empty(os.pread(fd, SEGMENT_HEADER_BYTES, place_bytes(slot))):
        return None
    data = os.pread(fd, SEGMENT_BYTES, place_bytes(slot))
    if len(data) < SEGMENT_BYTES or walk_segment(memoryview(data), superblock, slot).state != VALID:
        return None
    return Contents.of([data])


# -- cost -------------------------------------------------------------------------------------


@main.command()
@click.option("--rounds", type=click.IntRange(1), default=25, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def cost(rounds: int, as_json: bool) -> None:
    """What a checksum costs a page: alone, and within a store and a load, both in RAM."""
    costs = measure(rounds)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(costs), indent=2))
        return
    headings = (
        "pages", "checksum", "alone ns", "store ns", "load ns", "share of store", "share of load"
    )  # fmt: skip
    rows = [
        [
            each.pages, each.checksum, f"{each.alone_ns:.0f}", f"{each.store_ns:.0f}",
            f"{each.load_ns:.0f}", f"{each.store_share:.1%}", f"{each.load_share:.1%}",
        ]
        for each in costs
    ]  # fmt: skip
    print_table(headings, rows, f"medians of {rounds} rounds")


if __name__ == "__main__":
    main()
