"""`vswapctl writeback` and `vswapctl drain`: move pages to the tiers, and back into RAM.

Owns these commands. Which segments go is the daemon's choice, within what is asked for.
"""

import click

from vswapfs.ctl import forms, instances, progress
from vswapfs.ctl.options import RootCommand, name_argument, parsed
from vswapfs.format.message import AskDrain, AskWriteback, Done


@click.command(cls=RootCommand)
@name_argument
@click.option("--all", "everything", is_flag=True, help="Write all. This is the default.")
@click.option(
    "--idle",
    "idle_s",
    metavar="AGE",
    callback=parsed(forms.parse_age_s),
    help="Write what was stored that long ago, or longer: 30s, 5m, 2h or 1d.",
)
@click.option("--incompressible", is_flag=True, help="Write what did not compress.")
@click.option(
    "--bytes",
    "max_bytes",
    metavar="N",
    callback=parsed(forms.parse_amount_bytes),
    help="Write so much, in whole segments of 1 MiB: what did not compress first, then the oldest.",
)
def writeback(
    name: str | None,
    everything: bool,
    idle_s: float | None,
    incompressible: bool,
    max_bytes: int | None,
) -> None:
    """Write pages from RAM to the tiers now, to make room in RAM.

    At most one of --all, --idle, --incompressible and --bytes may be given.

    \b
    Example:
      vswapctl writeback --idle 2h
    """
    given = [
        option
        for option, is_given in (
            ("--all", everything),
            ("--idle", idle_s is not None),
            ("--incompressible", incompressible),
            ("--bytes", max_bytes is not None),
        )
        if is_given
    ]
    if len(given) > 1:
        raise click.UsageError(
            f"{' and '.join(given)} exclude each other: at most one says what to write; "
            "leave out all but one"
        )
    request = AskWriteback(idle_s or 0.0, incompressible, max_bytes)
    _, reached = progress.follow(instances.choose(name), request, Done, "writing")
    click.echo(f"wrote {reached}" if reached.done_bytes else "nothing to write")


@click.command(cls=RootCommand)
@name_argument
def drain(name: str | None) -> None:
    """Read all that is on the tiers back into RAM.

    In the order in which it lies there: faster than page by page, as it is asked for. There has
    to be room in RAM.

    \b
    Example:
      vswapctl drain && vswapctl off
    """
    _, reached = progress.follow(instances.choose(name), AskDrain(), Done, "reading back")
    click.echo(f"read back {reached}" if reached.done_bytes else "nothing to read back")
