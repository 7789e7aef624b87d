"""Recordings: samples in a file of lines, each with its checksum.

Owns the form, version 1. Each line is 16 hexadecimal digits, a space and an object of JSON; the
digits are xxh3 of the JSON, with the number of the line (the first is 0) as seed, so that a line
that is missing or in another place is noticed like one that has changed. First comes a Header, then
Samples, then an End with their number, which is missing if the recording was cut short. Never does
I/O.
"""

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

import msgspec
from xxhash import xxh3_64_intdigest

from vswapfs.errors import RecordingError
from vswapfs.format.decode import decode
from vswapfs.format.histogram import BUCKETS
from vswapfs.format.message import Sample

VERSION: Final = 1
INTERVAL_MAX_S: Final = 86_400.0
_DIGITS: Final = 16
_UNIX_MAX_S: Final = 1 << 35
_FIGURE_MAX: Final = 1 << 63

_T = TypeVar("_T")


class Header(msgspec.Struct, tag="vswapfs-recording"):
    """The first line of every version begins with these two fields."""

    version: int
    instance: str
    interval_s: float


class End(msgspec.Struct, tag="end"):
    samples: int


class _Version(msgspec.Struct, tag="vswapfs-recording"):
    version: int


_encoder = msgspec.json.Encoder()
_versions: msgspec.json.Decoder[_Version] = msgspec.json.Decoder(_Version)
_headers: msgspec.json.Decoder[Header] = msgspec.json.Decoder(Header)
_lines: msgspec.json.Decoder[Sample | End] = msgspec.json.Decoder(Sample | End)


def line(number: int, content: Header | Sample | End) -> bytes:
    """A line of a recording, with its end."""
    encoded = _encoder.encode(content)
    return b"%016x %b\n" % (xxh3_64_intdigest(encoded, seed=number), encoded)


def read_header(first: bytes, path: str) -> Header:
    """What the first line says. Raises RecordingError if it is no recording of this version."""
    digits, encoded = first[:_DIGITS], first[_DIGITS + 1 :]
    try:
        version = decode(_versions, encoded).version
    except msgspec.MsgspecError:
        raise RecordingError(
            f"{path} is not a recording: its first line is not that of one",
            remedy="vswapctl record makes one",
        ) from None
    if version != VERSION:
        raise RecordingError(
            f"{path} is a recording of version {version}; this vswapctl reads version {VERSION}",
            remedy="use the vswapctl that made it",
        )
    _verify(0, digits, encoded, path)
    header = _decode(_headers, encoded, 0, path)
    if not 0 < header.interval_s <= INTERVAL_MAX_S:
        raise _damaged(0, path, f"impossible: an interval of {header.interval_s} s")
    return header


def read_samples(rest: Iterable[bytes], path: str) -> Iterator[Sample]:
    """The samples in the lines after the first.

    Raises RecordingError at the first line that is not as it was written, or if the end is missing.
    """
    count = 0
    for number, text in enumerate(rest, 1):
        if not text.endswith(b"\n"):
            break
        digits, encoded = text[:_DIGITS], text[_DIGITS + 1 : -1]
        _verify(number, digits, encoded, path)
        found = _decode(_lines, encoded, number, path)
        if isinstance(found, End):
            return
        if (wrong := _impossible(found)) is not None:
            raise _damaged(number, path, f"impossible: {wrong}")
        count += 1
        yield found
    raise RecordingError(
        f"{path} is cut short after {count} samples: its end is missing",
        remedy="what is before that is good, and was used",
    )


def _impossible(sample: Sample) -> str | None:
    """What no daemon tells, though line and checksum are right. Whoever shows samples computes with
    their figures, and must not have to fear each of them."""
    if not 1 <= sample.unix_s <= _UNIX_MAX_S:
        return f"a time of {sample.unix_s} s"
    for key, histogram in sample.stats.histograms.items():
        if len(histogram.counts) != BUCKETS or min(histogram.counts) < 0:
            return f"the histogram {key}"
    if min(sample.status.pages.values(), default=0) < 0:
        return "fewer than 0 pages"
    if any(abs(number) > _FIGURE_MAX for number in _numbers(msgspec.to_builtins(sample))):
        return f"a figure beyond {_FIGURE_MAX}"
    return None


def _numbers(value: object) -> Iterator[float]:
    """All of them in what JSON is made of, however deep."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _numbers(each)
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(each)


def _verify(number: int, digits: bytes, encoded: bytes, path: str) -> None:
    if digits != b"%016x" % xxh3_64_intdigest(encoded.rstrip(b"\n"), seed=number):
        raise _damaged(number, path, "its checksum does not match")


def _decode(decoder: msgspec.json.Decoder[_T], encoded: bytes, number: int, path: str) -> _T:
    try:
        return decode(decoder, encoded)
    except msgspec.MsgspecError as error:
        raise _damaged(number, path, str(error)) from None


def _damaged(number: int, path: str, why: str) -> RecordingError:
    return RecordingError(
        f"{path} is damaged in line {number + 1}: {why}",
        remedy="what is before that is good, and was used" if number else "",
    )
