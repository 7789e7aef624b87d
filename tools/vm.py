"""Run this checkout in a virtual machine with a kernel of Debian's: docs/testing.md.

Owns the command line; tools/guest has the rest.
"""

import shutil
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from guest import Guest, GuestError, GuestGoneError, kernels
from guest.pressed import Load, press
from guest.qemu import DEFAULT_KERNEL
from pressure import PROTECTIONS

from vswapfs.errors import UsageError
from vswapfs.units import parse_size_bytes

MIB = 1 << 20


class Size(click.ParamType[int]):
    """A size such as 512M, in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_size_bytes(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class VmGroup(click.Group):
    """Tells what a guest could not do as an error, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GuestError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=VmGroup)
def main() -> None:
    """Run this checkout in a QEMU guest with a kernel of Debian's, emulated.

    The host's files are read-only there, what is written is gone with the guest. Scratch disks are
    /dev/vdd, /dev/vde, ...
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # the guest is taken down, as for ctrl-C


def machine_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--directory",
            type=click.Path(file_okay=False, path_type=Path),
            help="Have scratch disks and console.log here; they stay, for another boot.",
        ),
        click.option("--append", default="", help="More words for the kernel's command line."),
        click.option("--disk", "disks", type=Size(), multiple=True, help="A scratch disk's size."),
        click.option("--cpus", type=click.IntRange(1), default=2, show_default=True),
        click.option("--memory", type=Size(), default="512M", show_default=True),
        click.option("--kernel", default=DEFAULT_KERNEL, show_default=True),
    ):
        command = option(command)
    return command


def make_guest(
    kernel: str, memory: int, cpus: int, disks: tuple[int, ...], append: str,
    directory: Path | None, *, interactive: bool = False,
) -> Guest:  # fmt: skip
    return Guest(
        kernel, memory_mib=memory // MIB, cpus=cpus, disks=disks, append=append,
        directory=directory, interactive=interactive,
    )  # fmt: skip


@main.command()
@machine_options
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=300.0,
    show_default=True, help="Seconds after which the command is killed.",
)  # fmt: skip
@click.argument("command", nargs=-1, required=True)
def run(timeout_s: float, command: tuple[str, ...], **machine: Any) -> None:
    """Run a command in a guest, in the checkout's directory, and end with its exit status."""
    streams = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}

    def echo(name: str, data: bytes) -> None:
        streams[name].write(data)
        streams[name].flush()

    with make_guest(**machine) as guest:
        result = guest.run(command, timeout_s=timeout_s, check=False, echo=echo)
        guest.power_off()
    # A command that a signal ended, as a shell tells it.
    sys.exit(result.exit_code if result.exit_code >= 0 else 128 - result.exit_code)


@main.command()
@machine_options
def shell(**machine: Any) -> None:
    """A shell in a guest, on its console. Exit ends the guest; so does ctrl-A x, at once."""
    if not sys.stdin.isatty():
        raise click.ClickException("a shell needs a terminal; tools/vm run runs a command")
    columns, rows = shutil.get_terminal_size()
    guest_with_console = make_guest(**machine, interactive=True)
    # Once it is up it may be ended by ctrl-A x.
    with terminal_restored(), guest_with_console as guest, suppress(GuestGoneError):
        guest.run_on_console(["bash", "-i"], (rows, columns))
        guest.power_off()


@contextmanager
def terminal_restored() -> Iterator[None]:
    """QEMU has the terminal pass every key; killed, it leaves it so."""
    before = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@main.command()
@machine_options
@click.option("--seconds", type=click.IntRange(10), default=120, show_default=True)
@click.option(
    "--factor", type=click.FloatRange(1), default=2.0, show_default=True,
    help="How much the hogs take, of the machine's memory.",
)  # fmt: skip
@click.option("--hogs", type=click.IntRange(1), default=2, show_default=True)
@click.option("--pool-limit", help="That of vswapctl on. [default: its own]")
@click.option(
    "--without", multiple=True, type=click.Choice(sorted(PROTECTIONS)),
    help="Take a protection away, to see what it is for.",
)  # fmt: skip
@click.option(
    "--kill-every", type=click.IntRange(1), metavar="SECONDS",
    help="Kill the worker that often; another has to take over, in the middle of it.",
)  # fmt: skip
def pressure(
    seconds: int, factor: float, hogs: int, pool_limit: str | None, without: tuple[str, ...],
    kill_every: int | None, disks: tuple[int, ...], **machine: Any,
) -> None:  # fmt: skip
    """Have hogs take more than the memory of a guest; all of it swaps to vswapfs.

    With a --disk there is a tier. Ends with 1 if a task hung, a byte was wrong, or anything but a
    hog was killed.
    """
    load = Load(seconds, factor, hogs, pool_limit, without, kill_every)
    with make_guest(**machine, disks=disks) as guest:
        verdict = press(guest, load, lambda text: click.echo(text, nl=False))
    click.echo("\n".join(verdict.faults) or "nothing hung, every byte was right")
    sys.exit(1 if verdict.faults else 0)


@main.command("kernels")
def list_kernels() -> None:
    """Kernels that are here, and those that apt offers; --kernel takes 6.1, or a whole name."""
    here = [kernel.release for kernel in kernels.cached()]
    for release in dict.fromkeys([*here, *kernels.offered()]):
        click.echo(f"{release:40} {'here' if release in here else 'offered'}")


if __name__ == "__main__":
    main()
