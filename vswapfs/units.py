"""Sizes as people write them, and the page size.

Owns the parsing and printing of sizes. Knows nothing of what a size is for.
"""

import re

from vswapfs.errors import UsageError

PAGE_BYTES = 4096
PAGE_SHIFT = 12

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d{1,20})(?:\.(\d{1,12}))?(?:([KMGT])?(?:(?<=[KMGT])I)?B?)", re.ASCII)
_OFFSET = re.compile(r"0x[0-9a-f]{1,16}", re.ASCII)
_SIZE_RULE = "a size is a whole number of bytes, or a number with K, M, G or T (powers of 1024)"


def parse_size_bytes(text: str) -> int:
    """Read a size such as ``2G``, ``512MiB``, ``1.5g`` or ``65536`` and return bytes.

    Raises UsageError that names the text and the rule.
    """
    found = _SIZE.fullmatch(text.strip().upper()) if text.isascii() else None
    if not found:
        raise UsageError(f"{_shown(text)} is not a size: {_SIZE_RULE}", remedy="write e.g. 2G")
    whole, fraction, suffix = (group or "" for group in found.groups())
    unit = _UNITS[suffix]
    scaled: int
    scaled, rest = divmod(int(whole + fraction) * unit, 10 ** len(fraction))
    if rest:
        raise UsageError(
            f"{_shown(text)} is not a whole number of bytes: {_SIZE_RULE}",
            remedy="use a smaller unit",
        )
    return scaled


def parse_offset_bytes(text: str) -> int:
    """Read a byte offset: decimal, ``0x`` hexadecimal, or a size such as ``1M``."""
    lowered = text.strip().lower()
    if not lowered.startswith("0x"):
        return parse_size_bytes(text)
    if not _OFFSET.fullmatch(lowered):
        raise UsageError(
            f"{_shown(text)} is not an offset: 0x is followed by 1 to 16 hexadecimal digits",
            remedy="write e.g. 0x1000",
        )
    return int(lowered, 16)


def _shown(text: str) -> str:
    """The text as an error names it, not longer than a line."""
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def format_size(value_bytes: float) -> str:
    """Print bytes as zramctl does, rounded, with a unit: ``1.2G``, ``512M``, ``80B``."""
    value = float(value_bytes)
    for suffix in ("B", "K", "M", "G", "T"):
        if abs(value) < 999.5 or suffix == "T":
            break
        value /= 1024
    if suffix == "B":
        return f"{int(value)}B"
    return f"{value:.1f}{suffix}" if abs(value) < 99.95 else f"{value:.0f}{suffix}"
