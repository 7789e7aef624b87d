"""`vswapfs`: mount the file system in the foreground, without making swap of it.

Owns its command line only. Never mounts: it becomes the daemon (execv), so that the process one
started is the one that serves, and that carries no command line library.
"""

import os
from pathlib import Path
from typing import Any

import click

from vswapfs import __version__
from vswapfs.ctl import forms, launch, output
from vswapfs.ctl.options import ReportingRootCommand, area_options
from vswapfs.format import instance
from vswapfs.format.message import Config


@click.command("vswapfs", cls=ReportingRootCommand)
@click.argument("mountpoint")
@area_options
@click.option(
    "--name",
    default=instance.DEFAULT_NAME,
    show_default=True,
    help="Name of the instance, for vswapctl.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def vswapfs(mountpoint: str, name: str, **area: Any) -> None:
    """Mount a virtual swap space at MOUNTPOINT, with one file in it: swap.

    Stays in the foreground until it is ended by Ctrl-C, by the end of its terminal, or by vswapctl
    off. It does not switch swap on; vswapctl on does, and is the command for daily use. This one is
    for tests and for those who set up the loop device themselves.

    \b
    Example:
      vswapfs /mnt/v --size 2G --name try
    """
    # Resolved, because the kernel lists a mount by its path without links.
    config = Config(
        name=instance.check_name(name),
        mountpoint=str(Path(forms.absolute(mountpoint)).resolve()),
        swap=False,
        **area,
    )
    command = launch.command_line("foreground", config)
    os.execv(command[0], command)


def main() -> None:
    """Entry point of the command."""
    with output.guarded("vswapfs"):
        vswapfs(prog_name="vswapfs")
