"""`vswapctl`: its commands, their options and help.

Owns the command line; what a command does is in the module it calls. Never imports the daemon.
What was asked for goes to stdout, everything about it to stderr; exit codes are those of
vswapfs.errors.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from vswapfs import __version__
from vswapfs.core import stats as fields
from vswapfs.ctl import (
    client,
    config_file,
    descriptors,
    feed,
    hibernate,
    instances,
    launch,
    log,
    output,
    owners,
    picture,
    questions,
    readiness,
    reconcile,
    render,
    scrub,
    settings,
    shutdown,
    succession,
    tier,
    top,
    trace,
    writeback,
)
from vswapfs.ctl import status as status_table
from vswapfs.ctl.options import ReportingGroup, area_options, split_name
from vswapfs.ctl.options import json_option as _json
from vswapfs.ctl.options import name_argument as _name
from vswapfs.format import instance
from vswapfs.format.message import (
    STATES,
    Answer,
    AskCheck,
    AskDescriptors,
    AskStats,
    Config,
    Descriptor,
    Descriptors,
    Done,
    Findings,
    Stats,
)

# Check goes over every page before it answers, desc with a rare state over many between answers.
_CHECK_TIMEOUT_S = 600.0
_DESC_TIMEOUT_S = 60.0

_STATS_HEADINGS = (
    render.Heading("FIELD"),
    render.Heading("VALUE", right=True),
    render.Heading("UNIT"),
    render.Heading("MEANING"),
)


def _tell(text: str) -> None:
    click.echo(text, err=True)


def _keep_quiet(text: str) -> None:
    """For steps, where nobody is there to watch them."""


@click.group("vswapctl", cls=ReportingGroup, epilog=questions.help_text())
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Set up and look into virtual swap spaces: compressed RAM behind a loop device.

    NAME is the name of an instance. Without it, the only instance is meant, or vswap0.

    \b
    Example:
      vswapctl on --size 2G
      vswapctl status
      vswapctl off
    """


@cli.command()
@click.argument("name", default=instance.DEFAULT_NAME)
@area_options
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=config_file.use,
    help="A file with any of these options, as /etc/vswapfs/NAME.toml; see vswapfs.toml(5). NAME "
    "is the file's, unless given. Options on the command line count more.",
)
@click.option(
    "--priority",
    type=click.IntRange(0, 32767),
    help="The kernel fills areas of higher priority first. [default: the kernel's, below all set]",
)
def on(name: str, **area: Any) -> None:
    """Start an instance and swap to it.

    Mounts the file system, attaches a loop device, and makes and switches on swap there. Prints
    the loop device. If a step fails, all are undone. NAME is vswap0 unless given.

    \b
    Example:
      vswapctl on --size 2G --pool-limit 1G --priority 100
      vswapctl on --size 64G --tier /dev/sdb1:48G --write-budget 20G/day
      vswapctl on --config /etc/vswapfs/vswap0.toml
    """
    config = Config(name=name, mountpoint=instance.mountpoint(name), swap=True, **area)
    was_up = instances.find(name) is instances.State.RUNNING  # and is not ours to take down
    try:
        ready = launch.start(config, _tell if sys.stderr.isatty() else _keep_quiet)
    except KeyboardInterrupt:
        # It may have come between the daemon's last word and our reading it.
        if not was_up and instances.find(name) is instances.State.RUNNING:
            shutdown.off(name, _tell, force=False)
        raise
    readiness.tell(name)
    if ready.loop_device is not None:
        click.echo(ready.loop_device)


@cli.command()
@_name
@click.option(
    "--force",
    is_flag=True,
    help="Also if the daemon makes no progress for 10 s, or died with pages in it. These pages "
    "are lost, and the kernel kills the processes that need them.",
)
def off(name: str | None, force: bool) -> None:
    """Take an instance down, so that nothing of it is left.

    The kernel first takes all pages back, for which there has to be memory. Also clears up after
    a daemon that died.

    \b
    Example:
      vswapctl off vswap0
    """
    name = instances.choose(name)
    shutdown.off(name, _tell, force=force)
    click.echo(f"{name} is down")


@cli.command()
@_name
def restart(name: str | None) -> None:
    """Replace the worker by one of the version that is installed now, without swapoff.

    Swap waits for some milliseconds meanwhile. Refused, with nothing changed, if the installed
    version does not understand the state of the running one.

    \b
    Example:
      vswapctl restart vswap0
    """
    name = instances.choose(name)
    now = succession.restart(name, _tell if sys.stderr.isatty() else _keep_quiet)
    click.echo(
        f"{name} is served by process {now.worker_pid}, version {now.version}; "
        f"swap waited {now.last_pause_ms} ms"
    )


@cli.command()
@_name
def adopt(name: str | None) -> None:
    """Give an instance a new supervisor, whose own was killed.

    Its worker serves on all the time; but should it die before, its pages are lost.

    \b
    Example:
      vswapctl adopt vswap0
    """
    name = instances.choose(name)
    succession.adopt(name, _keep_quiet)
    click.echo(f"{name} has a supervisor again")


@cli.command(epilog=status_table.help_text())
@_name
@_json
@click.option("-n", "--noheadings", is_flag=True, help="Print no headings.")
@click.option("-b", "--bytes", "exact", is_flag=True, help="Print sizes in bytes.")
@click.option("-o", "--output", metavar="COLS", help="Columns to print, with commas between.")
def status(
    name: str | None, as_json: bool, noheadings: bool, exact: bool, output: str | None
) -> None:
    """Show all instances, or one.

    A line each: how much is in it, where that is, and what it saves.

    With the table, stderr names what should not be missed: protections that the machine refused,
    tiers that fail, writes that were refused, instances that are dead or do not answer. If there is
    any of the last, the exit code is 4, with --json as well.

    \b
    Example:
      vswapctl status --bytes --output NAME,USED,POOL-USED
    """
    columns = status_table.select(output)
    rows = list(status_table.gather(name))
    if as_json:
        render.print_json([status_table.as_object(row) for row in rows])
    elif rows:
        render.print_table(
            [column.heading for column in columns],
            [status_table.cells(row, columns, exact=exact) for row in rows],
            show_headings=not noheadings,
        )
        for row in rows:
            for warning in status_table.warnings(row):
                _tell(f"warning: {warning}")
    else:
        _tell("no instance is up")
    if any(row.error for row in rows):
        sys.exit(client.NotAnsweringError.exit_code)


@cli.command()
@_name
@_json
def stats(name: str | None, as_json: bool) -> None:
    """Show every figure of an instance with its unit and meaning.

    JSON nests by the dots: pool.used_bytes is "used_bytes" in "pool".

    \b
    Example:
      vswapctl stats --json | jq .pool.used_bytes
    """
    values = client.ask(instances.choose(name), AskStats(), Stats).values
    if as_json:
        render.print_json(fields.nest(values))
        return
    render.print_table(
        _STATS_HEADINGS,
        [
            (field.key, str(values[field.key]), field.unit.value, field.help)
            for field in fields.FIELDS
            if field.key in values
        ],
    )


@cli.command()
@_name
@click.option("--listen", metavar="ADDRESS:PORT", help="Serve them over HTTP, until ended.")
@click.option(
    "--allow-remote", is_flag=True, help="Let --listen take an address that other machines reach."
)
def metrics(name: str | None, listen: str | None, allow_remote: bool) -> None:
    """Print all figures of all instances, or one, as OpenMetrics text.

    Names are those of vswapctl stats, which has units and meanings, with vswapfs_ before them and
    underscores for dots. With --listen each scrape asks the daemons.
    Without NAME, one that does not answer has vswapfs_up 0; with NAME that is an error, unless
    --listen waits for it to come back.

    \b
    Example:
      vswapctl metrics > vswapfs.prom.new && mv vswapfs.prom.new vswapfs.prom
      vswapctl metrics --listen 127.0.0.1:9187
    """
    from vswapfs.ctl import metrics as openmetrics  # with a library that no other command needs

    if allow_remote and listen is None:
        raise click.UsageError("--allow-remote without --listen: it says where to listen")
    name = None if name is None else instance.check_name(name)
    if listen is not None:
        openmetrics.serve(openmetrics.parse_address(listen, allow_remote=allow_remote), name)
        return
    if name is not None:
        feed.ask_sample(name)
    click.echo(openmetrics.exposition(name), nl=False)


@cli.command()
@click.argument("words", nargs=-1, required=True, metavar="[NAME] OFFSET | START-END")
@click.option("--state", type=click.Choice(STATES), help="Show only pages in this state.")
@_json
def desc(words: tuple[str, ...], state: str | None, as_json: bool) -> None:
    """Show where pages are now.

    Either the page at OFFSET, or those from START up to, but not with, END.

    Offsets are bytes from the start of the area: 8192, 0x2000 or 8K. The kernel's slot N, which
    page tables name, is at N * 4096. Each record is read and its checksum compared.

    STATE is empty, zero, same, pool (in RAM) or disk (on a tier). FILL is what a page that is kept
    as a marker repeats. A record is at byte PLACE of SEGMENT and takes STORED bytes behind its
    header; TIER is the tier that the segment is on, and the byte of the record there.

    \b
    Example:
      vswapctl desc 0x2000
      vswapctl desc vswap0 0-1M --state pool
    """
    name, text = split_name(words, "an offset or a range")
    start_bytes, end_bytes = descriptors.parse_range(text)
    name = instances.choose(name)
    batches = _descriptors(name, AskDescriptors(start_bytes, end_bytes, state))
    chunks = descriptors.json_chunks if as_json else descriptors.table_chunks
    for chunk in chunks(batches):
        click.echo(chunk, nl=False)


def _descriptors(name: str, request: AskDescriptors) -> Iterator[list[Descriptor]]:
    for answer in client.answers(name, request, _DESC_TIMEOUT_S):
        if isinstance(answer, Descriptors):
            yield answer.descriptors


@cli.command()
@_name
def check(name: str | None) -> None:
    """Check all structural invariants of an instance. Page I/O waits meanwhile.

    Ends with exit code 1 if any does not hold.

    \b
    Example:
      vswapctl check && echo fine
    """
    name = instances.choose(name)
    lines: list[Answer] = []
    client.ask(name, AskCheck(), Done, _CHECK_TIMEOUT_S, lines.append)
    findings = [each for line in lines if isinstance(line, Findings) for each in line.findings]
    render.print_lines(findings or ["all invariants hold"])
    if findings:
        sys.exit(1)


for _command in (
    log.log, tier.tier, writeback.writeback, writeback.drain, scrub.lost, scrub.scrub,
    top.top, top.record, top.replay, picture.map_command, settings.set_command, trace.trace,
    owners.owners, reconcile.reconcile, hibernate.hibernate, hibernate.resume,
):  # fmt: skip
    cli.add_command(_command)


def main() -> None:
    """Entry point of the command."""
    with output.guarded("vswapctl"):
        cli(prog_name="vswapctl")
