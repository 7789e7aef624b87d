"""What vswapctl and vswapfs have in common: options of an area, the check for root, error output.

Owns the form in which an error is told. Nothing is parsed, read or started for a caller who is
not root; only --help and --version are.
"""

import os
import shlex
import signal
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from vswapfs.ctl import expression, forms, output
from vswapfs.errors import PermissionRefusedError, UsageError, VswapError
from vswapfs.format.message import SAME_FILLED, TierConfig
from vswapfs.format.settings import (
    LOG_LEVELS,
    POLLING_WINDOW_US,
    RECOMPRESS_LEVEL,
    WRITEBACK_START_PCT,
    WRITEBACK_STOP_PCT,
    Number,
)

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")
_OVERWRITE = "vswapfs.tier_overwrite"
_NOBODY_READS = 128 + signal.SIGPIPE
CONFIG_FILE = "vswapfs.config_file"
"""In the meta of a context: which file the default map is of."""

name_argument = click.argument("name", required=False)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class RootCommand(click.Command):
    """A command for root only."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, after the check for root. Raises PermissionRefusedError."""
        if (
            "--help" not in args
            and "--version" not in args
            and not ctx.resilient_parsing  # completion of a command line
            and os.geteuid() != 0
        ):
            raise PermissionRefusedError(
                "only root may do this",
                remedy=f"sudo {ctx.command_path} {shlex.join(args)}".strip(),
            )
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            name = error.param and error.param.name
            if not name or ctx.get_parameter_source(name) is not ParameterSource.DEFAULT_MAP:
                raise
            message = f"{ctx.meta[CONFIG_FILE]}: {error.message}"
            raise click.BadParameter(message, ctx, error.param) from None


class Reporting(click.Command):
    """A command, or group, that tells errors of the tree in two lines and by its exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except VswapError as error:
            click.echo(f"{self.name}: {error.message}", err=True)
            if error.remedy:
                click.echo(f"  try: {error.remedy}", err=True)
            sys.exit(error.exit_code)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse. --help and --version print here already."""
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError:
            output.give_up()
            raise click.exceptions.Exit(_NOBODY_READS) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run it. Exit codes are a shell's after ctrl-C or a closed pipe: 1 says that something
        was found."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            output.give_up()
            ctx.exit(_NOBODY_READS)


class RootGroup(click.Group):
    """A group of commands, each for root only."""

    command_class = RootCommand


class ReportingGroup(Reporting, RootGroup):
    """The group of a command with subcommands, each for root only."""


class ReportingRootCommand(Reporting, RootCommand):
    """A command without subcommands, for root only."""


def parsed(
    parse: Callable[[str], _T],
) -> Callable[[click.Context, click.Parameter, str | None], _T | None]:
    """Make of a function that may raise UsageError the callback of an option."""

    def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> _T | None:
        if value is None:
            return None
        try:
            return parse(value)
        except UsageError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback


def _keep_overwrite(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[_OVERWRITE] = value


def _tiers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[TierConfig]:
    overwrite: bool = ctx.meta[_OVERWRITE]  # its option is eager, so that it was seen before
    if overwrite and not values:
        raise click.UsageError(
            "--tier-overwrite without a tier: it says how to take what --tier names; "
            "give --tier PATH:SIZE too",
            ctx,
        )
    try:
        return [forms.parse_tier(value, overwrite=overwrite) for value in values]
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _number_option(
    name: str, field: str, metavar: str, limits: Number, text: str
) -> Callable[[_F], _F]:
    return click.option(
        name,
        field,
        metavar=metavar,
        type=click.IntRange(limits.least, limits.most),
        default=limits.default,
        show_default=True,
        help=f"{text} {limits.span}.",
    )


def area_options(command: _F) -> _F:
    """Add the options of an area, from --size to --allow-unlocked; each is a field of Config."""
    for option in (
        click.option(
            "--allow-unlocked",
            is_flag=True,
            help="Start even if the daemon's memory cannot be locked. Then the machine can hang: "
            "the daemon may have to be swapped in from itself.",
        ),
        click.option(
            "--same-filled",
            type=click.Choice(SAME_FILLED),
            default="same",
            show_default=True,
            help="Pages kept as a marker without any memory: those of zeros only, those that "
            "repeat any 8 bytes, or none.",
        ),
        click.option(
            "--log-level",
            type=click.Choice(LOG_LEVELS),
            default=LOG_LEVELS[0],
            show_default=True,
            help="Least severe of what goes to the log.",
        ),
        _number_option(
            "--polling-window",
            "polling_window_us",
            "US",
            POLLING_WINDOW_US,
            "How long the daemon polls for the next request before it sleeps, in microseconds; "
            "0: it always sleeps, which is slower and takes less of the processor.",
        ),
        _number_option(
            "--writeback-stop",
            "writeback_stop_pct",
            "PERCENT",
            WRITEBACK_STOP_PCT,
            "Stop writing back when no more of the pool limit is used.",
        ),
        _number_option(
            "--writeback-start",
            "writeback_start_pct",
            "PERCENT",
            WRITEBACK_START_PCT,
            "Write back to the tiers when more of the pool limit is used.",
        ),
        _number_option(
            "--recompress-level",
            "recompress_level",
            "LEVEL",
            RECOMPRESS_LEVEL,
            "Of LZ4 HC, for --recompress.",
        ),
        click.option(
            "--recompress",
            is_flag=True,
            help="When nothing else is to be done, compress pages that were stored more than a "
            "minute ago again, with LZ4 HC: slower, but shorter.",
        ),
        click.option(
            "--encrypt",
            is_flag=True,
            help="Encrypt what is written to the tiers, under a key that is made now, kept in "
            "locked memory only, and gone when the instance is taken down.",
        ),
        click.option(
            "--write-budget",
            "write_budget_bytes_per_day",
            metavar="SIZE/day",
            callback=parsed(forms.parse_budget_bytes),
            help="Most that may be written to the tiers in a day, to spare an SSD: 20G/day. "
            "[default: no limit]",
        ),
        click.option(
            "--tier-overwrite",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_keep_overwrite,
            help="Take tiers that already hold something, which is then gone.",
        ),
        click.option(
            "--tier",
            "tiers",
            metavar="PATH:SIZE",
            multiple=True,
            callback=_tiers,
            help="A file or block device to write pages to, and how much of it to use. May be "
            "given again; the first is filled first.",
        ),
        click.option(
            "--pool-limit",
            "pool_limit_bytes",
            metavar="SIZE",
            callback=parsed(expression.parse_limit),
            help="Most RAM that pages may take, or 'auto': as much as the machine can spare at any "
            "time. What does not fit goes to a tier; without one, the kernel keeps it. "
            "[default: --size, at most a quarter of the machine's memory]",
        ),
        click.option(
            "--size",
            "size_bytes",
            metavar="SIZE",
            callback=parsed(expression.parse_size_or_expression),
            required=True,
            help="Size of the area, before compression. Memory is taken only as pages arrive. May "
            "be an expression: 'min(ram / 2, 8G)'.",
        ),
    ):
        command = option(command)
    return command


def split_name(words: tuple[str, ...], what: str) -> tuple[str | None, str]:
    """Of the words of ``[NAME] WHAT``: NAME, if there are two, and the other one."""
    if len(words) > 2:
        raise click.UsageError(f"give {what}, and before it at most a NAME")
    return (words[0] if len(words) == 2 else None), words[-1]
