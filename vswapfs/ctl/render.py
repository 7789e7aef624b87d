"""Output for people and for scripts: tables, JSON, spans of time.

Owns how it looks; never what is shown. On a terminal tables have a bold heading, elsewhere they
are plain aligned columns with one line a row; rich is imported only for the terminal.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import click
import msgspec

NOTHING = "-"


class Heading(NamedTuple):
    name: str
    right: bool = False
    width: int = 0
    """Least width, for a table of which not all rows are known when the first is printed."""


def print_table(
    headings: Sequence[Heading], rows: Sequence[Sequence[str]], *, show_headings: bool = True
) -> None:
    """Print a whole table; every column gets the width it needs."""
    if sys.stdout.isatty():
        _print_rich(headings, rows, show_headings)
        return
    names = [[heading.name for heading in headings]] if show_headings else []
    cells = [*names, *rows]
    fitted = [
        heading._replace(width=max((len(row[index]) for row in cells), default=0))
        for index, heading in enumerate(headings)
    ]
    print_lines(plain_row(fitted, row) for row in cells)


def plain_row(headings: Sequence[Heading], row: Sequence[str]) -> str:
    """One line with each cell in the width of its column; a longer cell moves the rest along."""
    return " ".join(
        cell.rjust(heading.width) if heading.right else cell.ljust(heading.width)
        for heading, cell in zip(headings, row, strict=True)
    ).rstrip()


def print_lines(lines: Iterable[str]) -> None:
    """Print lines in one write; nothing if there are none."""
    if text := "\n".join(lines):
        click.echo(text)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def format_span(seconds: float) -> str:
    """A span of time by its two greatest units and without a space: ``3d4h``, ``2m05s``."""
    whole = int(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days}d{hours % 24}h"
    if hours:
        return f"{hours}h{minutes % 60:02}m"
    return f"{minutes}m{whole % 60:02}s" if minutes else f"{whole}s"


def _print_rich(
    headings: Sequence[Heading], rows: Sequence[Sequence[str]], show_headings: bool
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=show_headings)
    for heading in headings:
        table.add_column(heading.name, justify="right" if heading.right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    # rich would cut cells to fit the terminal; a figure cut short is a wrong figure.
    natural = console.measure(table, options=console.options.update(max_width=1 << 16)).maximum
    console.width = max(console.width, natural)
    console.print(table)
