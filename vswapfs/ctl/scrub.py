"""`vswapctl scrub` and `vswapctl lost`: records that do not verify, and pages that are lost.

Owns these commands and their tables. Neither repairs anything; both end with exit code 1 if there
is something to tell.
"""

import sys

import click
import msgspec

from vswapfs.ctl import client, forms, instances, progress, render
from vswapfs.ctl.options import RootCommand, json_option, name_argument, parsed
from vswapfs.format.message import (
    Answer,
    AskLost,
    AskScrub,
    Done,
    Lost,
    Scrubbed,
    ScrubFindings,
)

_LOST_HEADINGS = (render.Heading("OFFSET", right=True), render.Heading("REASON"))
_SCRUB_HEADINGS = (
    render.Heading("TIER"),
    render.Heading("PLACE", right=True),
    render.Heading("OFFSET", right=True),
    render.Heading("REASON"),
)


@click.command(cls=RootCommand)
@name_argument
@json_option
def lost(name: str | None, as_json: bool) -> None:
    """Show the pages that are lost, and why.

    These could not be verified when they were last read. Reading one of them is an I/O error; a
    process that needs it gets SIGBUS. OFFSET is in bytes from the start of the area. Ends with
    exit code 1 if any page is lost.

    \b
    Example:
      vswapctl lost || vswapctl scrub
    """
    lines: list[Answer] = []
    client.ask(instances.choose(name), AskLost(), Done, show=lines.append)
    pages = [page for line in lines if isinstance(line, Lost) for page in line.pages]
    if as_json:
        render.print_json(pages)
    elif pages:
        render.print_table(_LOST_HEADINGS, [(hex(page.offset), page.reason) for page in pages])
    else:
        click.echo("no page is lost")
    if pages:
        sys.exit(1)


@click.command(cls=RootCommand)
@name_argument
@click.option(
    "--rate",
    "rate_bytes_per_s",
    metavar="SIZE",
    callback=parsed(forms.parse_amount_bytes),
    help="Read at most this much a second. [default: as fast as the tiers are]",
)
@json_option
def scrub(name: str | None, rate_bytes_per_s: int | None, as_json: bool) -> None:
    """Read every record on the tiers and verify it. Swap stays in use.

    PLACE is where a bad record lies in the file or device of TIER, OFFSET which page of the area
    it is, if that is known; both in bytes. Ends with exit code 1 if any record is bad.

    \b
    Example:
      vswapctl scrub --rate 50M
    """
    request = AskScrub(rate_bytes_per_s)
    lines: list[Answer] = []
    told, reached = progress.follow(
        instances.choose(name), request, Scrubbed, "verifying", lines.append
    )
    findings = [each for line in lines if isinstance(line, ScrubFindings) for each in line.findings]
    if as_json:
        render.print_json({**msgspec.structs.asdict(told), "findings": findings})
    else:
        if findings:
            render.print_table(
                _SCRUB_HEADINGS,
                [
                    (each.tier, hex(each.byte_offset), _page(each.page_offset), each.reason)
                    for each in findings
                ],
            )
        verdict = f"{len(findings)} bad" if findings else "all are good"
        read = reached._replace(done_bytes=told.scrubbed_bytes, total_bytes=told.scrubbed_bytes)
        click.echo(f"verified {told.records} records, {read}: {verdict}")
    if findings:
        sys.exit(1)


def _page(offset: int | None) -> str:
    return render.NOTHING if offset is None else hex(offset)
