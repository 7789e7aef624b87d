"""`vswapctl log`: look into a tier at rest, without a daemon.

Owns these commands and how they tell what they found. How the medium is read is in medium.py, what
counts as damage in format/tier_walk.py. Whatever a tier holds becomes a line, never an exception,
except that without a superblock nothing can be said.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import click
import msgspec

from vswapfs.ctl import render
from vswapfs.ctl.medium import opened, read_superblock, walk
from vswapfs.ctl.options import RootGroup, json_option
from vswapfs.errors import HostError
from vswapfs.format.record import CODEC_NAMES
from vswapfs.format.tier import CIPHER_NAMES, Superblock, slot_offset_bytes
from vswapfs.format.tier_walk import (
    DAMAGED,
    EMPTY,
    Finding,
    RecordFound,
    SegmentFound,
)
from vswapfs.units import format_size

_ENCRYPTED: Final = (
    "the tier is encrypted, and only the running instance has the key: superblock, headers and the "
    "checksum of each segment as it lies there are verified; records cannot be read"
)

_FINDING_HEADINGS: Final = (
    render.Heading("PLACE", right=True),
    render.Heading("SLOT", right=True),
    render.Heading("OFFSET", right=True),
    render.Heading("REASON"),
)
_SUMMARY_HEADINGS: Final = tuple(
    render.Heading(name, right=True)
    for name in ("SLOTS", "EMPTY", "SEGMENTS", "DAMAGED", "RECORDS", "STORED", "FINDINGS")
)
# Widths are given: a tier has too many segments and records to see all before the first is told.
_SEGMENT_HEADINGS: Final = (
    render.Heading("SLOT", right=True, width=8),
    render.Heading("PLACE", right=True, width=12),
    render.Heading("STATE", width=7),
    render.Heading("SEQUENCE", right=True, width=16),
    render.Heading("FILL", right=True, width=8),
    render.Heading("RECORDS", right=True, width=7),
)
_RECORD_HEADINGS: Final = (
    render.Heading("PLACE", right=True, width=12),
    render.Heading("OFFSET", right=True, width=14),
    render.Heading("STORED", right=True, width=6),
    render.Heading("CODEC", width=5),
    render.Heading("CHECKSUM", width=16),
    render.Heading("VERIFIED"),
)


@dataclass(slots=True)
class _Report:
    """What check found, as in its JSON."""

    path: str
    superblock: dict[str, Any]
    slots: int
    empty: int = 0
    segments: int = 0
    damaged: int = 0
    records: int = 0
    stored_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, found: SegmentFound) -> None:
        self.empty += found.state == EMPTY
        self.segments += found.state != EMPTY
        self.damaged += found.state == DAMAGED
        self.records += len(found.records)
        self.stored_bytes += sum(record.stored_bytes for record in found.records)
        self.findings += found.findings


@click.group(cls=RootGroup)
def log() -> None:
    """Look into a tier that is not in use, without a daemon. Nothing is written.

    PATH is the file or block device.

    \b
    Example:
      vswapctl log check /var/swap/tier0
    """


@log.command()
@click.argument("path")
@json_option
def check(path: str, as_json: bool) -> None:
    """Read a whole tier and verify superblock, segments and records. Of an encrypted tier records
    cannot be seen: what is verified of a segment is its header and the checksum of all of it.

    PLACE is where a finding lies in the file or device, OFFSET which page of the area it is; both
    in bytes. A tier in use is refused: scrub verifies it. Ends with exit code 1 if there is any
    finding, 6 if it is not a tier.

    \b
    Example:
      vswapctl log check /dev/sdb1 --json | jq '.findings[].byte_offset'
    """
    with opened(path) as medium:
        if medium.in_use:
            raise HostError(
                f"check {path}",
                "it is in use: what is being written would look damaged",
                remedy="vswapctl scrub, which asks the daemon",
            )
        superblock, findings = read_superblock(medium)
        report = _Report(path, _shown(superblock), superblock.slot_count, findings=findings)
        for found in walk(medium, superblock, report.findings):
            report.add(found)
    unseen: dict[str, None] = {}
    if superblock.cipher:
        _note(_ENCRYPTED)
        unseen = {"records": None, "stored_bytes": None}
    if as_json:
        render.print_json(asdict(report) | unseen)
    else:
        if report.findings:
            render.print_table(
                _FINDING_HEADINGS,
                [
                    (
                        str(each.byte_offset),
                        render.NOTHING if each.slot is None else str(each.slot),
                        render.NOTHING if each.page_offset is None else hex(each.page_offset),
                        each.reason,
                    )
                    for each in report.findings
                ],
            )
            click.echo()
        counts = (report.slots, report.empty, report.segments, report.damaged)
        records = (str(report.records), format_size(report.stored_bytes))
        if unseen:
            records = (render.NOTHING, render.NOTHING)
        row = [*map(str, counts), *records, str(len(report.findings))]
        render.print_table(_SUMMARY_HEADINGS, [row])
    if report.findings:
        sys.exit(1)


@log.command()
@click.argument("path")
@click.option("--records", "with_records", is_flag=True, help="Print the records of each segment.")
@json_option
def dump(path: str, with_records: bool, as_json: bool) -> None:
    """Print the superblock of a tier and the segments in its slots; empty slots are left out.

    Works on a tier in use too, as reading does no harm, but what is being written then may look
    damaged. PLACE is a byte of the file or device, OFFSET one of the area.

    \b
    Example:
      vswapctl log dump /var/swap/tier0 --records
    """
    with opened(path) as medium:
        if medium.in_use:
            _warn(f"{path} is in use: what is being written may look damaged")
        superblock, findings = read_superblock(medium)
        if superblock.cipher:
            _note(_ENCRYPTED)
        segments = (each for each in walk(medium, superblock, findings) if each.state != EMPTY)
        chunks = _json_chunks if as_json else _text_chunks
        for chunk in chunks(superblock, segments, findings, with_records):
            click.echo(chunk)
    for finding in findings:
        _warn(_finding_line(finding))


def _note(text: str) -> None:
    click.echo(f"note: {text}", err=True)


def _warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)


def _shown(superblock: Superblock) -> dict[str, Any]:
    return {
        **asdict(superblock),
        "uuid": superblock.uuid.hex(),
        "cipher": CIPHER_NAMES[superblock.cipher],
    }


def _text_chunks(
    superblock: Superblock,
    segments: Iterator[SegmentFound],
    findings: list[Finding],
    with_records: bool,
) -> Iterator[str]:
    for key, value in _shown(superblock).items():
        yield f"{key:<26} {value}"
    yield ""
    yield _heading_row(_SEGMENT_HEADINGS)
    for found in segments:
        yield _segment_row(found, superblock)
        # The table of records has the reasons too.
        for finding in found.findings:
            if finding.page_offset is None or not with_records:
                yield f"  {_finding_line(finding)}"
        if with_records and found.records:
            yield f"  {_heading_row(_RECORD_HEADINGS)}"
            for record in found.records:
                yield f"  {render.plain_row(_RECORD_HEADINGS, _cells(record))}"


def _finding_line(finding: Finding) -> str:
    return f"byte {finding.byte_offset}: {finding.reason}"


def _segment_row(found: SegmentFound, superblock: Superblock) -> str:
    header = found.header
    row = (
        found.slot,
        slot_offset_bytes(found.slot, superblock.segment_bytes),
        found.state,
        header.sequence if header else render.NOTHING,
        header.fill_bytes if header else render.NOTHING,
        render.NOTHING if superblock.cipher else len(found.records),
    )
    return render.plain_row(_SEGMENT_HEADINGS, [str(cell) for cell in row])


def _heading_row(headings: Sequence[render.Heading]) -> str:
    return render.plain_row(headings, [heading.name for heading in headings])


def _cells(record: RecordFound) -> tuple[str, ...]:
    return (
        str(record.byte_offset),
        hex(record.page_offset),
        str(record.stored_bytes),
        CODEC_NAMES[record.codec],
        f"{record.checksum:016x}",
        "yes" if record.error is None else f"no: {record.error}",
    )


def _json_chunks(
    superblock: Superblock,
    segments: Iterator[SegmentFound],
    findings: list[Finding],
    with_records: bool,
) -> Iterator[str]:
    """One object, a segment a line: a tier may hold more records than memory."""
    yield f'{{"superblock": {_json(_shown(superblock))},\n"segments": ['
    comma = ""
    for found in segments:
        yield comma + _json(_segment_value(found, superblock, with_records))
        comma = ","
    yield f'],\n"findings": {_json(findings)}}}'


def _segment_value(
    found: SegmentFound, superblock: Superblock, with_records: bool
) -> dict[str, Any]:
    header = found.header
    value = {
        "slot": found.slot,
        "byte_offset": slot_offset_bytes(found.slot, superblock.segment_bytes),
        "state": found.state,
        "sequence": header and header.sequence,
        "fill_bytes": header and header.fill_bytes,
        "tier_uuid": header and header.tier_uuid.hex(),
        "record_count": None if superblock.cipher else len(found.records),
        "findings": found.findings,
    }
    if with_records:
        value["records"] = [
            {
                **asdict(record),
                "codec": CODEC_NAMES[record.codec],
                "checksum": f"{record.checksum:016x}",
            }
            for record in found.records
        ]
    return value


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
