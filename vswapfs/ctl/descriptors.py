"""`vswapctl desc`: the range it is asked for, and descriptors as lines of a table or of JSON.

Owns the range syntax and the columns. Never holds more than one answer of the daemon, so a range
of any length can be printed. Widths are fixed, as rows are printed before the last is known.
"""

from collections.abc import Iterable, Iterator

import msgspec

from vswapfs.ctl.render import NOTHING, Heading, plain_row
from vswapfs.errors import UsageError
from vswapfs.format.message import Descriptor
from vswapfs.units import parse_offset_bytes

_HEADINGS = (
    Heading("OFFSET", right=True, width=12),
    Heading("STATE", width=5),
    Heading("FILL", width=18),
    Heading("SEGMENT", right=True, width=7),
    Heading("PLACE", right=True, width=8),
    Heading("STORED", right=True, width=6),
    Heading("RATIO", right=True, width=6),
    Heading("CODEC", width=5),
    Heading("CHECKSUM", width=16),
    Heading("VERIFIED", width=8),
    Heading("TIER"),
)


def parse_range(text: str) -> tuple[int, int]:
    """Read ``OFFSET`` or ``START-END`` and return the bytes [start, end).

    One offset means the page it lies in. Raises UsageError.
    """
    start_text, dash, end_text = text.partition("-")
    try:
        start_bytes = parse_offset_bytes(start_text)
        end_bytes = parse_offset_bytes(end_text) if dash else start_bytes + 1
    except UsageError as error:
        raise UsageError(
            f"{text!r} is not an offset or a range: {error.message}",
            remedy="write for example 0x1000, 4K or 0-1M",
        ) from None
    if end_bytes <= start_bytes:
        raise UsageError(
            f"the range {text} is empty: END is the first byte that is not in it",
            remedy="give an END above START",
        )
    return start_bytes, end_bytes


def table_chunks(batches: Iterable[list[Descriptor]]) -> Iterator[str]:
    """Descriptors as a table, in pieces to be written one after the other."""
    heading = plain_row(_HEADINGS, [heading.name for heading in _HEADINGS]) + "\n"
    for batch in batches:
        yield heading + "".join(_line(descriptor) for descriptor in batch)
        heading = ""
    yield heading


def json_chunks(batches: Iterable[list[Descriptor]]) -> Iterator[str]:
    """Descriptors as one JSON list, in pieces to be written one after the other.

    If the daemon fails on the way the list stays open: it cannot be taken for complete.
    """
    opening = "[\n"
    for batch in batches:
        if batch:
            yield opening + ",\n".join(msgspec.json.encode(each).decode() for each in batch)
            opening = ",\n"
    yield "[]\n" if opening == "[\n" else "\n]\n"


def _line(descriptor: Descriptor) -> str:
    row = (
        hex(descriptor.offset),
        descriptor.state,
        _text(descriptor.fill),
        _text(descriptor.segment),
        _text(descriptor.segment_offset),
        _text(descriptor.stored_bytes),
        NOTHING if descriptor.ratio is None else f"{descriptor.ratio:.2f}",
        _text(descriptor.codec),
        _text(descriptor.checksum),
        _verified(descriptor),
        NOTHING if descriptor.tier is None else f"{descriptor.tier}+{descriptor.tier_offset:#x}",
    )
    return plain_row(_HEADINGS, row) + "\n"


def _verified(descriptor: Descriptor) -> str:
    if descriptor.error is not None:
        return f"no: {descriptor.error}"
    if descriptor.verified is None:
        return NOTHING
    return "yes" if descriptor.verified else "no"


def _text(value: str | int | None) -> str:
    return NOTHING if value is None else str(value)
