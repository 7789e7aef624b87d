"""What vswapctl and vswapfs have in common: options of an area, the check for root, error output.

Owns the form in which an error is told. Nothing is parsed, read or started for a caller who is
not root; only --help and --version are.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from vswapfs.errors import PermissionRefusedError, UsageError, VswapError
from vswapfs.format.message import SAME_FILLED
from vswapfs.units import parse_size_bytes

_F = TypeVar("_F", bound=Callable[..., Any])


class RootCommand(click.Command):
    """A command for root only."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, after the check for root. Raises PermissionRefusedError."""
        if "--help" not in args and "--version" not in args and os.geteuid() != 0:
            raise PermissionRefusedError(
                "only root may do this", remedy=f"sudo {' '.join([ctx.command_path, *args])}"
            )
        return super().parse_args(ctx, args)


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


class ReportingGroup(Reporting, click.Group):
    """The group of a command with subcommands, each for root only."""

    command_class = RootCommand


class ReportingRootCommand(Reporting, RootCommand):
    """A command without subcommands, for root only."""


def _size_bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return parse_size_bytes(value)
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def area_options(command: _F) -> _F:
    """Add the options of an area: --size, --pool-limit, --same-filled, --allow-unlocked."""
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
            "--pool-limit",
            "pool_limit_bytes",
            metavar="SIZE",
            callback=_size_bytes,
            help="Most RAM that pages may take. When it is full the kernel keeps further pages. "
            "[default: --size, at most a quarter of the machine's memory]",
        ),
        click.option(
            "--size",
            "size_bytes",
            metavar="SIZE",
            callback=_size_bytes,
            required=True,
            help="Size of the area, before compression. Memory is taken only as pages arrive.",
        ),
    ):
        command = option(command)
    return command
