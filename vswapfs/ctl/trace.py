"""`vswapctl trace`: what happens to pages, as it happens.

Owns the command and its columns. Never keeps an event: it is printed as it comes.
"""

import contextlib
import signal
from collections.abc import Iterator

import click
import msgspec

from vswapfs.ctl import client, descriptors, instances, render
from vswapfs.ctl.options import RootCommand, json_option, name_argument, parsed
from vswapfs.errors import UsageError
from vswapfs.format.trace import EVENTS, AskTrace, Event, Events
from vswapfs.units import format_size

_HEADINGS = (
    render.Heading("TIME", right=True, width=10),
    render.Heading("EVENT", width=9),
    render.Heading("OFFSET", right=True, width=12),
    render.Heading("PAGES", right=True, width=5),
    render.Heading("US", right=True, width=8),
    render.Heading("DETAIL"),
)


def _parse_events(text: str) -> list[str]:
    events = [word.strip() for word in text.split(",")]
    if unknown := [event for event in events if event not in EVENTS]:
        raise UsageError(
            f"no such event: {', '.join(map(repr, unknown))}",
            remedy=f"choose from {', '.join(EVENTS)}",
        )
    return events


@click.command(cls=RootCommand)
@name_argument
@click.option(
    "--events",
    metavar="EVENTS",
    callback=parsed(_parse_events),
    help=f"Which, with commas between: {', '.join(EVENTS)}. [default: all]",
)
@click.option(
    "--slot",
    "span",
    metavar="RANGE",
    callback=parsed(descriptors.parse_range),
    help="Only requests for these slots: an offset or START-END, in bytes, as for desc.",
)
@json_option
def trace(
    name: str | None, events: list[str] | None, span: tuple[int, int] | None, as_json: bool
) -> None:
    """Show what happens to pages, until Ctrl-C.

    TIME is in seconds since the trace began, US how long it took. A store tells in which states
    the pages are now, a load in which they were. JSON has an object a line.

    At most some thousand events a second are shown; when there are more, one in so many is. That,
    and that the trace is on, is said on stderr. Nothing is slower while nobody traces. One trace at
    a time.

    \b
    Example:
      vswapctl trace --events store,writeback
      timeout 10 vswapctl trace --slot 0-1M --json > events
    """
    start, end = span or (0, None)
    name = instances.choose(name)
    one_in = 0
    with contextlib.suppress(KeyboardInterrupt):
        for answer in client.answers(name, AskTrace(events or list(EVENTS), start, end)):
            if not isinstance(answer, Events):
                continue
            heading = []
            if not one_in and not as_json:
                heading = [render.plain_row(_HEADINGS, [each.name for each in _HEADINGS])]
            with _whole():
                render.print_lines(heading + _lines(answer.events, as_json))
            if not one_in:
                one_in = 1
                click.echo(f"tracing {name}; Ctrl-C ends it", err=True)
            if answer.one_in != one_in:
                one_in = answer.one_in
                click.echo(
                    f"showing one event in {one_in}; {answer.left_out} left out so far", err=True
                )


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Ctrl-C waits until the line is out."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _lines(events: list[Event], as_json: bool) -> list[str]:
    if as_json:
        return [msgspec.json.encode(event).decode() for event in events]
    return [render.plain_row(_HEADINGS, _cells(event)) for event in events]


def _cells(event: Event) -> list[str]:
    details = [f"{state}:{pages}" for state, pages in (event.states or {}).items()]
    if event.segment is not None:
        details.append(f"segment {event.segment}, tier {event.tier}")
    if event.bytes is not None:
        details.append(format_size(event.bytes))
    if event.error is not None:
        details.append(event.error)
    return [
        f"{event.at_s:.6f}",
        event.event,
        render.NOTHING if event.offset is None else hex(event.offset),
        render.NOTHING if event.pages is None else str(event.pages),
        f"{event.us:.1f}",
        " ".join(details) or render.NOTHING,
    ]
