"""The simulation at length: seed after seed, each a machine with faults, kills and delays.

Owns the command and its figures. What is simulated is in tests/sim; nothing of this machine is used
but one processor. Ends with 1 if a seed failed, and has then told the shortest way there.
"""

import logging
import sys
import time
from pathlib import Path
from typing import Final

import click

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from sim.seeds import Life, add, live, mode_of, shortest_trace, story_of
from sim.simulation import Tally

EVENTS: Final = ("restarts", "faults", "lost", "loads", "tier_loads", "tiers_added")


def _numbers(_ctx: click.Context, _param: click.Parameter, value: str) -> range:
    """``A-B`` or one number."""
    first, _, last = value.partition("-")
    try:
        numbers = range(int(first), int(last or first) + 1)
    except ValueError:
        numbers = range(0)
    if not numbers:
        raise click.BadParameter(f"{value!r} is not A-B with A at most B, for example 0-999")
    return numbers


@click.command()
@click.option("--seeds", metavar="A-B", callback=_numbers, default="0-49", show_default=True)
@click.option("--operations", default=20_000, show_default=True, help="Of each seed.")
@click.option(
    "--shorten-s", default=300, show_default=True, help="Time to look for a failure's shortest way."
)
@click.option("--only", metavar="N,N,...", help="Of these operations of one seed: a shortest way.")
def simulate(seeds: range, operations: int, shorten_s: int, only: str | None) -> None:
    """Seeds of the simulation, at length.

    Each seed is a machine with tiers whose media fail and lie, whose worker is killed and whose I/O
    is delayed. A machine that has had so many tiers that it can have no more is taken down, all of
    it verified, and another goes on with the next operation.
    """
    logging.disable()  # of failing tiers there is no end
    if only:
        click.echo("\n".join(story_of(seeds[0], [int(number) for number in only.split(",")])))
        return
    total, began_s, done, failed = Tally(), time.process_time(), 0, 0
    for seed in seeds:
        seed_began_s = time.process_time()
        tally, lives, start = Tally(), 0, 0
        while start < operations:
            life = live(seed, range(start, operations))
            lives += 1
            add(tally, life.tally)
            if life.error:
                failed += 1
                start += life.operations
                _tell(seed, range(start - life.operations, start), life, shorten_s)
                break
            start += life.operations
        done += start
        add(total, tally)
        click.echo(
            f"seed {seed} {mode_of(seed)}: {start} operations, {lives} machines, "
            f"{start / (time.process_time() - seed_began_s):.0f} a second, {_events(tally)}"
        )
    spent_s = time.process_time() - began_s
    click.echo(
        f"{len(seeds)} seeds of {operations} operations: {done} operations in {spent_s:.0f} s of "
        f"the processor, {done / spent_s:.0f} a second, {failed} failed\n{_events(total)}"
    )
    sys.exit(failed > 0)


def _events(tally: Tally) -> str:
    return ", ".join(f"{event} {getattr(tally, event)}" for event in EVENTS)


def _tell(seed: int, numbers: range, life: Life, shorten_s: int) -> None:
    click.echo(f"FAILED: {life.error}")
    click.echo(f"looking for the shortest way there, for {shorten_s} s at most", err=True)
    trace = shortest_trace(seed, numbers, life.failure, time.monotonic() + shorten_s)
    click.echo("\n".join(story_of(seed, trace)))
    if len(trace) <= 200:
        click.echo(f"again: --seeds {seed} --only {','.join(map(str, trace))}")
