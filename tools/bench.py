"""Benchmarks: one subcommand each; every figure in docs/ names the subcommand that printed it.

Owns the command line. Never asserts: a figure is printed, beside what was aimed at, not judged.
"""

import signal
from collections.abc import Callable
from typing import Any

import click
from benchmarks import answers as answers_benchmark
from benchmarks import device as device_benchmark
from benchmarks import encrypt as encrypt_benchmark
from benchmarks import memory, store
from benchmarks import real as real_benchmark
from benchmarks import scale as scale_benchmark
from benchmarks import survival as survival_benchmark
from benchmarks import swap as swap_benchmark
from benchmarks import tiers as tiers_benchmark
from benchmarks import watching as watching_benchmark
from benchmarks.host import BenchError
from benchmarks.programs import PROGRAMS
from benchmarks.report import Report


class BenchGroup(click.Group):
    """Prints what cannot be measured as an error, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BenchError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=BenchGroup)
def main() -> None:
    """Measure vswapfs on this machine."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # what is up is taken down, as for ctrl-C


def quick_option(what: str) -> Callable[..., Any]:
    return click.option("--quick", is_flag=True, help=what)


save_option = click.option(
    "--save", is_flag=True, help="Write docs/benchmarks/COMMAND.json and .svg."
)


def show(report: Report, *, save: bool) -> None:
    report.print()
    if save:
        report.save()


@main.command()
@quick_option("4 KiB only.")
@save_option
def device(quick: bool, save: bool) -> None:
    """fio through a loop device, beside other user-space devices and zram.

    Random reads and writes of 4, 32 and 128 KiB on 512 MiB, one at a time (mean latency) and
    sixteen at a time (a second), of data that compresses and data that does not.
    """
    show(device_benchmark.measure(quick=quick), save=save)


@main.command()
@quick_option("512 MiB in 128 MiB.")
@save_option
@click.option(
    "--risky", is_flag=True, help="Swap to qemu-storage-daemon and nbdkit too; that may hang."
)
def swap(quick: bool, save: bool, risky: bool) -> None:
    """Swapping for real, beside zram, zswap and a swap file.

    A process of 1 GiB in a memory cgroup of 256 MiB: fill, verify in order, touch at random; a fill
    with 0xff; one process and 32 that fill, touch and free memory as usemem does; the time to free
    what is swapped, and to swapoff; processor while idle.
    """
    show(swap_benchmark.measure(quick=quick, risky=risky), save=save)


@main.command()
@click.argument("names", metavar="[PROGRAM]...", nargs=-1, type=click.Choice(tuple(PROGRAMS)))
@quick_option("Less memory.")
@save_option
def real(names: tuple[str, ...], quick: bool, save: bool) -> None:
    """Real programs in a memory cgroup, beside zram, zswap, a swap file, and enough RAM.

    compile: gcc -O2, 8 at a time. redis: a server with more data than memory, under
    redis-benchmark; its values are compared with what was written. matrix: a product of two
    matrices in numpy, verified. All of them, unless some are named.
    """
    show(real_benchmark.measure(names or PROGRAMS, quick=quick), save=save)


@main.command()
@quick_option("Up to 16 GiB instead of 64, tiers up to 4 GiB instead of 16.")
@save_option
def scale(quick: bool, save: bool) -> None:
    """Memory beyond payload and time per page: areas from 1 to 64 GiB, tiers from 1 to 16 GiB.

    sparse: 8 pages of each cluster of 512. stored, filled: all slots. on a tier: 512 MiB of pages
    that do not compress, nearly all of them on a file tier as large as the area. Reads and writes
    of 4 KiB at random, one at a time, through the mounted file, median.
    """
    show(scale_benchmark.measure(quick=quick), save=save)


@main.command()
@save_option
def survival(save: bool) -> None:
    """Latency at depth 1, with and without a successor that waits for the daemon's death."""
    show(survival_benchmark.measure(), save=save)


@main.command()
@save_option
def watching(save: bool) -> None:
    """Latency and rate of loads alone, with `vswapctl top`, and with `vswapctl trace`."""
    show(watching_benchmark.measure(), save=save)


@main.command()
@save_option
def answers(save: bool) -> None:
    """How long every command that looks takes to answer, with Python's start: median and worst.

    On an area of 4 GiB whose slots all hold a page, with 32 processes that have pages in it; beside
    nothing, then beside fio at depth 16 and a process that swaps.
    """
    show(answers_benchmark.measure(), save=save)


@main.command()
@click.option("--size-gib", default=32, show_default=True)
def metadata(size_gib: int) -> None:
    """Memory beyond payload, as an area fills with stored and with filled pages.

    The daemon's resident size, less what it was empty, less the payload of the records.
    """
    store.metadata(size_gib)


@main.command()
@click.option("--size-mib", default=512, show_default=True)
@click.option("--seconds", default=20, show_default=True, help="How long pages are overwritten.")
def density(size_mib: int, seconds: int) -> None:
    """Payload per RAM taken while pages are overwritten at random, and 10 s later, beside zram.

    Both get the same pages in the same order: half of a device of that size is filled, then runs of
    1 to 16 pages anywhere in it are overwritten or discarded.
    """
    store.density(size_mib, seconds)


@main.command()
@click.option("--tier-mib", default=256, show_default=True)
@click.option("--pool-mib", default=32, show_default=True)
@click.option("--fill", default=0.8, show_default=True, help="Share of the tier that is live.")
@click.option(
    "--rounds", default=3.0, show_default=True, help="Times the live pages are overwritten."
)
@click.option(
    "--skew", default=0.0, show_default=True, help="0: uniform; 0.9: 90 % to 10 % of pages"
)
def writeamp(tier_mib: int, pool_mib: int, fill: float, rounds: float, skew: float) -> None:
    """Bytes to disk over bytes of records accepted, for random overwrites of a tier that full.

    Pages are incompressible, so a record has 4110 bytes. They are overwritten twice before.
    """
    store.write_amplification(tier_mib, pool_mib, fill, rounds, skew)


@main.command()
def touch() -> None:
    """What memory for the pool costs: the first touch, another one, and giving it back."""
    memory.touch()


@main.command()
@click.option("--directory", default="/usr/lib", show_default=True, help="Whose files' pages.")
def recompress(directory: str) -> None:
    """Length and time of payloads, by compressor: what --recompress wins, and what it takes."""
    memory.recompress(directory)


@main.command()
@click.option("--rounds", default=3, show_default=True)
def tiers(rounds: int) -> None:
    """Taking pages back from disk: swapoff, drain then swapoff, tier remove; beside a swap file."""
    tiers_benchmark.measure(rounds)


@main.command()
@click.option("--rounds", default=5, show_default=True)
def encrypt(rounds: int) -> None:
    """Pages on a tier with and without --encrypt: written out, read, taken back.

    And the ciphers by themselves, by how much gets a tag of its own.
    """
    encrypt_benchmark.measure(rounds)


if __name__ == "__main__":
    main()
