"""`vswapctl map`: the tables as a picture, in the terminal, in a file, or as JSON.

Owns the command and what it looks like in a terminal. Every cell is a letter there too, so that it
can be read without colours.
"""

import shutil
from pathlib import Path
from typing import Any, Final

import click

from vswapfs.core.descriptor import CLUSTER_PAGES, CLUSTER_SHIFT
from vswapfs.ctl import drawing, grid, instances, render, table
from vswapfs.ctl.grid import Grid
from vswapfs.ctl.options import RootCommand, json_option, name_argument
from vswapfs.ctl.table import STATE_NAMES, Table
from vswapfs.errors import UsageError
from vswapfs.units import PAGE_BYTES, format_size

_ROWS_MAX: Final = 16
_LABEL_WIDTH: Final = 12
_BY: Final = {"pages": ("state", "ratio", "age"), "segments": ("utilization", "age"), "tier": ()}


@click.command("map", cls=RootCommand)
@name_argument
@click.option("--segments", is_flag=True, help="Show segments: RAM and tiers.")
@click.option("--tier", is_flag=True, help="Show the log as it lies on the tiers.")
@click.option(
    "--by",
    type=click.Choice(sorted({by for choices in _BY.values() for by in choices})),
    help="What decides the colour: for pages state, ratio or age; for segments utilization or age. "
    "[default: state; utilization]",
)
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), help="Draw into a file.")
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Draw into a file.")
@json_option
def map_command(
    name: str | None,
    segments: bool,
    tier: bool,
    by: str | None,
    png: Path | None,
    svg: Path | None,
    as_json: bool,
) -> None:
    """Show the descriptor table as a picture.

    Each cell stands for a run of slots and has the colour and letter of what most of them hold,
    empty ones left aside. The numbers below are exact. JSON has what --segments or --tier show, or
    else each cluster of 512 slots that holds something; it has every figure, so --by is not needed.

    The age of a page is that of its segment: since it was sealed.

    \b
    Example:
      vswapctl map
      vswapctl map --by ratio --png ratio.png
      vswapctl map --segments --by age
    """
    if segments and tier:
        raise click.UsageError("--segments and --tier exclude each other: leave one out")
    view = "segments" if segments else "tier" if tier else "pages"
    by = _check_by(view, by)
    name = instances.choose(name)
    found = table.fetch(name, words=view != "segments")
    if as_json:
        render.print_json({"name": name, **_AS_OBJECT[view](found)})
    for path, form in ((png, "png"), (svg, "svg")):
        if path is not None:
            grids = _grids(found, view, by, drawing.CELLS_MAX)
            if not grids:
                raise UsageError(f"{name} has no tier to draw", remedy="vswapctl tier add")
            drawing.draw(grids, name, path, form)
    if not (as_json or png or svg):
        columns = 64 if shutil.get_terminal_size().columns >= 64 + _LABEL_WIDTH + 1 else 32
        grids = _grids(found, view, by, columns * _ROWS_MAX)
        if not grids:
            click.echo(f"{name} has no tier", err=True)
        for number, each in enumerate(grids):
            if number:
                click.echo()
            _print(each, columns)


def _check_by(view: str, by: str | None) -> str:
    choices = _BY[view]
    if by is None:
        return choices[0] if choices else ""
    if by not in choices:
        rule = f"choose from {', '.join(choices)}" if choices else "leave it out"
        what = {"pages": "pages", "segments": "--segments", "tier": "--tier"}[view]
        raise click.UsageError(f"--by {by} does not go with {what}: {rule}")
    return by


def _grids(found: Table, view: str, by: str, cells_max: int) -> list[Grid]:
    match view:
        case "segments":
            return grid.segments(found, by, cells_max)
        case "tier":
            return grid.tiers(found, cells_max)
        case _:
            return grid.pages(found, by, cells_max)


def _print(each: Grid, columns: int) -> None:
    size = format_size(each.cell_units * each.unit_bytes)
    click.secho(f"{each.title}; a cell is {size}", bold=True)
    symbols = [click.style(kind.symbol, fg="black", bg=_rgb(kind.colour)) for kind in each.kinds]
    for row, offset in enumerate(grid.row_offsets(each, columns)):
        cells = each.cells[row * columns : (row + 1) * columns]
        click.echo(f"{offset:#{_LABEL_WIDTH}x} " + "".join(symbols[cell] for cell in cells))
    for symbol, kind, count in zip(symbols, each.kinds, each.counts, strict=True):
        if count:
            click.echo(f"{symbol} {kind.name}: {count} {each.unit}")


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _pages_object(found: Table) -> dict[str, Any]:
    pages = {state: found.pages(number) for number, state in enumerate(STATE_NAMES)}
    pages["empty"] -= len(found.states) - found.page_count
    return {
        "page_count": found.page_count,
        "pages": pages,
        "pool_bytes": found.bytes_in(table.POOL),
        "disk_bytes": found.bytes_in(table.DISK),
        "clusters": [_cluster_object(found, cluster) for cluster in sorted(found.words)],
    }


def _cluster_object(found: Table, cluster: int) -> dict[str, Any]:
    first = cluster << CLUSTER_SHIFT
    stop = min(first + CLUSTER_PAGES, found.page_count)
    states = found.states[first:stop]
    stored_bytes = sum(found.stored_bytes[first:stop])
    stored_pages = states.count(table.POOL) + states.count(table.DISK)
    return {
        "offset": first * PAGE_BYTES,
        **{state: states.count(number) for number, state in enumerate(STATE_NAMES)},
        "stored_bytes": stored_bytes,
        "ratio": table.ratio(stored_pages, stored_bytes),
        "oldest_s": found.oldest_s(cluster),
    }


def _segments_object(found: Table) -> dict[str, Any]:
    paths = {tier.number: tier.path for tier in found.area.tiers}
    return {
        "segment_bytes": found.area.segment_bytes,
        "ram_slot_count": found.area.ram_slot_count,
        "tiers": [{"path": tier.path, "slot_count": tier.slot_count} for tier in found.area.tiers],
        "segments": [
            {
                "number": segment.number,
                "tier": paths.get(segment.tier),
                "slot": segment.slot,
                "state": "open" if segment.is_open else "sealed",
                "head": _HEADS[segment.head],
                "fill_bytes": segment.fill_bytes,
                "live_bytes": segment.live_bytes,
                "live_pages": segment.live_pages,
                "utilization": round(segment.live_bytes / found.area.segment_bytes, 4),
                "age_s": segment.age_s,
                "sequence": segment.sequence,
            }
            for segment in found.segments.values()
        ],
    }


_HEADS: Final = ("compressed", "incompressible", "survivors")


def _tier_object(found: Table) -> dict[str, Any]:
    return {
        "segment_bytes": found.area.segment_bytes,
        "tiers": [
            {
                "path": tier.path,
                "slot_count": tier.slot_count,
                "slots": _slot_objects(found, tier.number),
            }
            for tier in found.area.tiers
        ],
    }


def _slot_objects(found: Table, tier: int) -> list[dict[str, Any]]:
    here = found.segments_on(tier)
    extents: dict[int, list[list[int]]] = {}
    for start, stop in sorted(grid.live_extents(found, here)):
        slot = start // found.area.segment_bytes - 1
        runs = extents.setdefault(slot, [])
        if runs and runs[-1][1] == start:
            runs[-1][1] = stop
        else:
            runs.append([start, stop])
    return [
        {
            "slot": segment.slot,
            "byte_offset": (segment.slot + 1) * found.area.segment_bytes,
            "segment": segment.number,
            "fill_bytes": segment.fill_bytes,
            "live_bytes": segment.live_bytes,
            "live_pages": segment.live_pages,
            "age_s": segment.age_s,
            "sequence": segment.sequence,
            "live": extents.get(segment.slot, []),
        }
        for segment in sorted(here.values(), key=lambda segment: segment.slot)
    ]


_AS_OBJECT: Final = {
    "pages": _pages_object,
    "segments": _segments_object,
    "tier": _tier_object,
}
