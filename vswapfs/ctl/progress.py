"""Commands that take long: how far they are, while they run, and how fast they were.

Owns what is shown meanwhile, all of it on stderr: a bar on a terminal, elsewhere a line now and
then, so that a short command says nothing there. rich is imported only for the terminal.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeVar

import click

from vswapfs.ctl import client
from vswapfs.format.message import Answer, Progress, Request
from vswapfs.units import format_size

# A disk that hangs for half a minute before it gives an error is common.
_PATIENCE_S: Final = 60.0
_LINE_EVERY_S: Final = 5.0

_A = TypeVar("_A", bound=Answer)
_Draw = Callable[[Progress, str], None]


class Reached(NamedTuple):
    """How far a command had come when it was done."""

    done_bytes: int
    total_bytes: int
    seconds: float

    def __str__(self) -> str:
        """Amount and rate: ``1.2G at 240M/s``, or ``1.2G of 2.0G at 240M/s`` if it ended early."""
        part = f" of {format_size(self.total_bytes)}" if self.done_bytes < self.total_bytes else ""
        return f"{format_size(self.done_bytes)}{part} at {self.rate}"

    @property
    def rate(self) -> str:
        return f"{format_size(self.done_bytes / max(self.seconds, 1e-6))}/s"


def follow(
    name: str,
    request: Request,
    kind: type[_A],
    doing: str,
    take: Callable[[Answer], None] = lambda _answer: None,
) -> tuple[_A, Reached]:
    """Send a request, show how far it is, and return its closing answer and how far it came.

    ``doing`` tells in words what goes on; ``take`` gets the other answers. Raises what client.ask
    raises.
    """
    begin_s = time.monotonic()
    reached = Reached(0, 0, 0.0)

    def show(answer: Answer) -> None:
        nonlocal reached
        if isinstance(answer, Progress):
            seconds = time.monotonic() - begin_s
            reached = Reached(answer.done_bytes, answer.total_bytes, seconds)
            figures = f"{format_size(answer.done_bytes)} of {format_size(answer.total_bytes)}"
            draw(answer, f"{figures}, {reached.rate}")
        else:
            take(answer)

    with (_bar if sys.stderr.isatty() else _lines)(doing) as draw:
        try:
            closing = client.ask(name, request, kind, _PATIENCE_S, show)
        except client.SilentError as error:
            # Not off --force, as elsewhere: it is the disk that one waits for, most likely.
            raise client.SilentError(
                f"{error.message}; it may still be at it", remedy=f"vswapctl tier list {name}"
            ) from None
    return closing, reached._replace(seconds=time.monotonic() - begin_s)


@contextmanager
def _lines(doing: str) -> Iterator[_Draw]:
    told_s = time.monotonic()

    def draw(progress: Progress, figures: str) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s >= _LINE_EVERY_S:
            told_s = now_s
            click.echo(f"{doing}: {figures}", err=True)

    yield draw


@contextmanager
def _bar(doing: str) -> Iterator[_Draw]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )
    with bar:
        # Without a total the bar swings to and fro, until the first figures come.
        task = bar.add_task(doing, total=None, figures="")

        def draw(progress: Progress, figures: str) -> None:
            bar.update(
                task, completed=progress.done_bytes, total=progress.total_bytes, figures=figures
            )

        yield draw
