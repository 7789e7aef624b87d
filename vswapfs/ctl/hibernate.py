"""`vswapctl hibernate` and `vswapctl resume`: the machine to an image, and back.

Owns these commands and what they print. What is done, and in which order, is in
vswapfs.hibernate.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from vswapfs.ctl import client, forms, instances, render
from vswapfs.ctl.options import RootCommand, name_argument, parsed
from vswapfs.errors import VswapError
from vswapfs.format.image import Header, Step
from vswapfs.format.message import AskStatus, AskWriteback, Done, Status
from vswapfs.units import format_size

if TYPE_CHECKING:
    from vswapfs.hibernate import suspend

# vswapfs.hibernate is imported by its commands only: every command starts in 158 ms, 207 with it.

_SPILL_TIMEOUT_S = 60.0
_HEADINGS = (
    render.Heading("STEP"),
    render.Heading("SECONDS", right=True),
    render.Heading("RATE", right=True),
)
_PER_IMAGE = (Step.READ, Step.COMPRESS, Step.CHECKSUM, Step.WRITE, Step.VERIFY)


def _tell(text: str) -> None:
    click.echo(text, err=True)


@click.command(cls=RootCommand)
@name_argument
@click.option(
    "--image",
    metavar="PATH:SIZE",
    required=True,
    callback=parsed(forms.parse_image),
    help="A block device that nothing else uses, and how much of it the image may take.",
)
@click.option("--test", is_flag=True, help="Write the image, do not power off, and go on.")
def hibernate(name: str | None, image: tuple[str, int], test: bool) -> None:
    """Write the machine's memory, swap included, to an image, and power off.

    NAME is the instance that is swapped to; no other swap may be active. The next boot has to run
    vswapctl resume before it mounts a file system. If anything fails before power-off, all goes
    on, and there is no image.

    \b
    Example:
      vswapctl hibernate --image /dev/sda3:8G
    """
    from vswapfs.hibernate import suspend

    machine = _machine(instances.choose(name))
    header = suspend.hibernate(*image, machine, _tell, test=test)
    click.echo(
        f"{'written' if test else 'resumed'}: an image of {format_size(header.image_bytes)}, "
        f"{format_size(header.stored_bytes)} on {image[0]}"
    )
    render.print_table(_HEADINGS, list(_rows(header)))


@click.command(cls=RootCommand)
@click.option("--image", "path", metavar="PATH", required=True, help="The block device it is on.")
def resume(path: str) -> None:
    """Verify a hibernation image and go on where it was made; for an initramfs.

    Every checksum is compared before anything is restored. An image that is not right is marked
    and refused, as is one that was used, and any while a file system is mounted for writing: it
    would be destroyed. Ends with exit code 7 if there is no image that can be resumed.

    \b
    Example:
      vswapctl resume --image /dev/sda3
    """
    from vswapfs.hibernate.resume import resume as resume_image

    resume_image(forms.absolute(path), _tell)


def _rows(header: Header) -> Iterator[tuple[str, str, str]]:
    for step, time_us in zip(Step, header.times_us, strict=True):
        if time_us:
            rate = header.image_bytes / time_us * 1e6
            shown = f"{format_size(rate)}/s" if step in _PER_IMAGE else render.NOTHING
            yield step.name.lower(), f"{time_us / 1e6:.3f}", shown


def _machine(name: str) -> "suspend.Machine":
    """Raises InstanceError; an instance beside it that does not answer cannot be hibernated."""
    from vswapfs.hibernate.suspend import Machine

    mine = client.ask(name, AskStatus(), Status)
    statuses = [mine] + [
        client.ask(each, AskStatus(), Status)
        for each in instances.names()
        if each != name and instances.find(each) is instances.State.RUNNING
    ]

    def spill(missing_bytes: int) -> None:
        if mine.tiers:
            _tell(f"write {format_size(missing_bytes)} of the pool to the tiers")
            # What could not be written is seen by what is missing afterwards.
            with contextlib.suppress(VswapError):
                request = AskWriteback(max_bytes=missing_bytes)
                client.ask(name, request, Done, _SPILL_TIMEOUT_S)

    return Machine(
        swap_device=mine.loop_device if mine.swap_used_bytes is not None else None,
        spared={
            pid
            for status in statuses
            for pid in (status.worker_pid, status.supervisor_pid, status.standby_pid)
            if pid is not None
        },
        tier_paths=[tier.path for status in statuses for tier in status.tiers],
        spill=spill,
    )
