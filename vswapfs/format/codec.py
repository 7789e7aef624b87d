"""Payloads and checksums of records, both ways.

Owns what the codec field means. What encode made, decode brings back to the byte, or it raises:
it never returns a page of another length.
"""

from typing import Final

from lz4.block import LZ4BlockError
from lz4.block import compress as _lz4_compress
from lz4.block import decompress as _lz4_decompress
from xxhash import xxh3_64_intdigest as checksum

from vswapfs.format.record import CODEC_LZ4, CODEC_RAW, CODEC_SHIFT, HEADER, HEADER_BYTES
from vswapfs.units import PAGE_BYTES

__all__ = ["INCOMPRESSIBLE_BYTES", "DecodeError", "checksum", "decode", "encode", "recompress"]

INCOMPRESSIBLE_BYTES: Final = PAGE_BYTES * 15 // 16
"""From this payload length on a page is kept raw: the last sixteenth would cost 1.2 us of
decompression on each load (python-lz4, 2 cores, kernel 6.18)."""


class DecodeError(Exception):
    """The payload is not what encode made. Callers turn it into a lost page."""


def encode(data: bytes) -> tuple[int, bytes]:
    """Return codec and payload (1..4096 bytes) of a page of 4096 bytes."""
    payload = _lz4_compress(data, store_size=False)
    if len(payload) < INCOMPRESSIBLE_BYTES:
        return CODEC_LZ4, payload
    return CODEC_RAW, data


def recompress(found: memoryview, level: int) -> memoryview | bytes:
    """A whole record, made shorter with LZ4's slower compressor (HC, levels 3 to 12) where that is
    possible.

    Its checksum stays, so what was damaged before is damaged after.
    """
    bound, page, tag = HEADER.unpack_from(found)
    if tag >> CODEC_SHIFT != CODEC_LZ4:
        return found
    try:
        data = decode(CODEC_LZ4, found[HEADER_BYTES:])
    except DecodeError:
        return found
    payload: bytes = _lz4_compress(
        data, mode="high_compression", compression=level, store_size=False
    )
    if len(payload) >= len(found) - HEADER_BYTES:
        return found
    return HEADER.pack(bound, page, CODEC_LZ4 << CODEC_SHIFT | len(payload) - 1) + payload


def decode(codec: int, payload: memoryview) -> bytes:
    """Return the page of 4096 bytes. Raises DecodeError."""
    if codec == CODEC_LZ4:
        try:
            data: bytes = _lz4_decompress(payload, uncompressed_size=PAGE_BYTES)
        except LZ4BlockError as error:
            raise DecodeError(f"LZ4: {error}") from None
    elif codec == CODEC_RAW:
        data = payload.tobytes()
    else:
        raise DecodeError(f"codec {codec} is not known")
    if len(data) != PAGE_BYTES:
        raise DecodeError(f"{len(data)} bytes instead of a page")
    return data
