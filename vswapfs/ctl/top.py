"""`vswapctl top`, `record` and `replay`: samples as they come, kept, and seen again.

Owns these commands. What a sample holds, the daemon decides; how a recording looks,
format/recording.py. textual is imported only to open the view.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from vswapfs.core import stats as fields
from vswapfs.ctl import client, feed, instances, signals
from vswapfs.ctl.options import RootCommand, json_option, name_argument, split_name
from vswapfs.errors import HostError, UsageError
from vswapfs.format import recording
from vswapfs.format.message import Sample

_PATIENCE_S: Final = client.ANSWER_TIMEOUT_S
"""A worker that is being replaced cannot be asked for a moment; a recording goes on then."""

interval_option = click.option(
    "--interval",
    "interval_s",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    help="Time from one sample to the next.",
)


@click.command(cls=RootCommand)
@name_argument
@interval_option
def top(name: str | None, interval_s: float) -> None:
    """Watch an instance: pages, traffic, latency, pool, tiers, warnings, in the whole terminal.

    Keys: space pauses, + and - change the interval, i goes to the next instance, h explains, q
    quits. Goes on when the daemon ends, and shows it again when it is back.

    With NO_COLOR=1 in the environment there are no colours.

    \b
    Example:
      vswapctl top vswap0 --interval 5
    """
    name = instances.choose(name)
    feed.ask_sample(name)  # a wrong name is an error, and no view
    _open(feed.Live(name), interval_s)


@click.command(cls=RootCommand)
@click.argument("words", nargs=-1, required=True, metavar="[NAME] FILE")
@interval_option
@click.option("--count", type=click.IntRange(1), help="End after so many. [default: at ctrl-C]")
def record(words: tuple[str, ...], interval_s: float, count: int | None) -> None:
    """Write samples to a new file, for replay.

    Every line has a checksum, so that damage is seen. Ends at ctrl-C, SIGTERM or SIGHUP, after
    --count samples, or with exit code 4 when the daemon ends.

    \b
    Example:
      vswapctl record vswap0 /var/tmp/night.rec --interval 10
    """
    name, path = split_name(words, "a FILE")
    name = instances.choose(name)
    sample = feed.ask_sample(name)
    with _new_file(path) as file:
        written = _record(name, sample, file, interval_s, count)
    click.echo(f"{written} samples are in {path}", err=True)


@click.command(cls=RootCommand)
@click.argument("path", metavar="FILE")
@json_option
def replay(path: str, as_json: bool) -> None:
    """Show a recording as top would have, or print it.

    With --json a line for each sample: its time, its status, and its stats as `vswapctl stats
    --json` nests them. A recording that is damaged or was cut short is shown up to there; that is
    told, with exit code 6.

    \b
    Example:
      vswapctl replay night.rec --json | jq .stats.pool.used_bytes
    """
    if as_json:
        for sample in feed.read(path, path)[1]:
            click.echo(msgspec.json.encode(_as_object(sample)))
        return
    recorded = feed.Recorded(path)
    _open(recorded, recorded.header.interval_s)


def _as_object(sample: Sample) -> dict[str, Any]:
    status = msgspec.to_builtins(sample.status)
    del status["type"]
    return {
        "unix_s": sample.unix_s,
        "status": status,
        "stats": fields.nest(sample.stats.values),
        "histograms": sample.stats.histograms,
    }


def _open(source: feed.Feed, interval_s: float) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "this needs a terminal", remedy="vswapctl stats, or replay --json, go anywhere"
        )
    for variable in ("COLUMNS", "LINES"):
        # Of the time when some shell exported them; textual would believe them after a resize.
        os.environ.pop(variable, None)
    from vswapfs.ctl.top_app import TopApp

    app = TopApp(source, interval_s)
    app.run(mouse=False)  # text can be selected as in any other program
    if app.failure:
        raise app.failure


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[FileIO]:
    """A file that was not there before, unbuffered, so that what is written is not lost."""
    try:
        file = Path(path).open("xb", buffering=0)  # noqa: SIM115 - the with is below
    except FileExistsError:
        raise UsageError(f"{path} exists already", remedy="give a new file") from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be made: {error.strerror}", remedy="give a path that can be written"
        ) from None
    with file:
        yield file


def _record(name: str, sample: Sample, file: FileIO, interval_s: float, count: int | None) -> int:
    """Returns how many samples were written; an end is, whatever happens."""
    lines = 0

    def write(content: recording.Header | Sample | recording.End) -> None:
        nonlocal lines
        line, begin = recording.line(lines, content), file.tell()
        try:
            while line:  # a full disk takes a part of it, and only then says so
                line = line[file.write(line) :]
        except OSError as error:
            file.seek(begin)
            file.truncate()
            raise HostError(f"write {file.name}", error.strerror or "") from None
        lines += 1

    due_s = time.monotonic()
    with signals.kept() as ending:
        write(recording.Header(recording.VERSION, name, interval_s))
        try:
            due: Sample | None = sample
            while due is not None:
                write(due)
                if lines - 1 == count:
                    break
                due_s = max(due_s + interval_s, time.monotonic())
                due = _next(name, due_s, interval_s, ending)
            return lines - 1
        finally:
            write(recording.End(lines - 1))


def _next(name: str, due_s: float, interval_s: float, ending: set[signal.Signals]) -> Sample | None:
    """The sample that is due then, or as soon after as the daemon can be asked; None: it ends."""
    wait_s = max(0.0, due_s - time.monotonic())
    while not signal.sigtimedwait(ending, wait_s):
        try:
            return feed.ask_sample(name)
        except client.NotAnsweringError:
            if time.monotonic() > due_s + _PATIENCE_S:
                raise
            wait_s = min(interval_s, 0.5)
    return None
