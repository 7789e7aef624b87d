"""Payloads and checksums of records, both ways.

Owns what the codec field means. What encode made, decode brings back to the byte, or it raises:
it never returns a page of another length.
"""

from typing import Final

from lz4.block import LZ4BlockError
from lz4.block import compress as _lz4_compress
from lz4.block import decompress as _lz4_decompress
from xxhash import xxh3_64_intdigest as checksum

from vswapfs.format.record import CODEC_LZ4, CODEC_RAW
from vswapfs.units import PAGE_BYTES

__all__ = ["INCOMPRESSIBLE_BYTES", "DecodeError", "checksum", "decode", "encode"]

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
