"""`vswapctl tier`: list, add and remove the files and devices that pages are written to.

Owns these commands and the columns of the list. What a tier is fit for, and what is on it, only
the daemon knows.
"""

import click
import msgspec

from vswapfs.ctl import client, forms, instances, progress, render
from vswapfs.ctl.options import RootGroup, json_option, name_argument, split_name
from vswapfs.format.message import (
    AskTierAdd,
    AskTierRemove,
    AskTiers,
    Done,
    Tiers,
    TierStatus,
)
from vswapfs.units import format_size

_HEADINGS = (
    render.Heading("PATH"),
    render.Heading("STATE"),
    render.Heading("SIZE", right=True),
    render.Heading("USED", right=True),
    render.Heading("LIVE", right=True),
    render.Heading("WRITTEN", right=True),
    render.Heading("READ", right=True),
    render.Heading("TRIMMED", right=True),
    render.Heading("ERRORS", right=True),
    render.Heading("DETAIL"),
)


@click.group(cls=RootGroup)
def tier() -> None:
    """Manage tiers: files and block devices that pages go to.

    Tiers are filled in the order in which they were given or added.

    \b
    Example:
      vswapctl tier add /dev/sdb1:32G
      vswapctl tier list
      vswapctl tier remove /dev/sdb1
    """


@tier.command("list")
@name_argument
@json_option
def list_tiers(name: str | None, as_json: bool) -> None:
    """Show the tiers of an instance, in the order in which they are filled.

    A tier is ok, failing (it is tried again, ever less often) or leaving (being removed). USED is
    what its slots take, LIVE what of that pages still need. WRITTEN, READ and TRIMMED are the
    traffic, ERRORS failed writes and reads together; JSON tells them apart, and has the UUID.

    Below it is the write budget, if there is one, and what is left of it.

    \b
    Example:
      vswapctl tier list --json | jq '.tiers[] | select(.state != "ok")'
    """
    name = instances.choose(name)
    told = client.ask(name, AskTiers(), Tiers)
    if as_json:
        render.print_json(msgspec.structs.asdict(told))
        return
    if told.tiers:
        render.print_table(_HEADINGS, [_cells(each) for each in told.tiers])
    else:
        click.echo(f"{name} has no tier", err=True)
    if told.write_budget_bytes_per_day is not None:
        budget = f"write budget: {format_size(told.write_budget_bytes_per_day)}/day"
        left = told.write_budget_left_bytes
        click.echo(budget if left is None else f"{budget}, {format_size(left)} left")


def _cells(status: TierStatus) -> list[str]:
    sizes = (
        status.size_bytes,
        status.used_bytes,
        status.live_bytes,
        status.written_bytes,
        status.read_bytes,
        status.trimmed_bytes,
    )
    return [
        status.path,
        status.state,
        *(format_size(size) for size in sizes),
        str(status.write_errors + status.read_errors),
        status.detail or render.NOTHING,
    ]


@tier.command()
@click.argument("words", nargs=-1, required=True, metavar="[NAME] PATH:SIZE")
@click.option(
    "--overwrite", is_flag=True, help="Take it even if it holds something, which is then gone."
)
def add(words: tuple[str, ...], overwrite: bool) -> None:
    """Add a file or block device as the last tier, and use SIZE of it.

    What follows the last colon is the size, so the path may have colons. Swap stays in use.

    \b
    Example:
      vswapctl tier add vswap0 /dev/disk/by-id/nvme-X-part3:32G
    """
    name, word = split_name(words, "a PATH:SIZE")
    config = forms.parse_tier(word, overwrite=overwrite)
    name = instances.choose(name)
    progress.follow(name, AskTierAdd(config), Done, f"adding {config.path}")
    click.echo(f"{config.path} is a tier of {name}, of {format_size(config.size_bytes)}")


@tier.command()
@click.argument("words", nargs=-1, required=True, metavar="[NAME] PATH")
def remove(words: tuple[str, ...]) -> None:
    """Move everything off a tier and let go of it.

    Swap stays in use meanwhile. PATH is what tier list shows.

    \b
    Example:
      vswapctl tier remove /dev/sdb1
    """
    name, word = split_name(words, "a PATH")
    path = forms.absolute(word)
    name = instances.choose(name)
    _, reached = progress.follow(name, AskTierRemove(path), Done, f"moving off {path}")
    moved = f"moved {reached}" if reached.done_bytes else "nothing had to be moved"
    click.echo(f"{path} is no tier of {name} any more: {moved}")
