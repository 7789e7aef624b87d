"""Sizes as people write them, and the page size.

Owns the parsing and printing of sizes. Knows nothing of what a size is for.
"""

from vswapfs.errors import UsageError

PAGE_BYTES = 4096
PAGE_SHIFT = 12

_SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE_RULE = "a size is a whole number of bytes, or a number with K, M, G or T (powers of 1024)"


def parse_size_bytes(text: str) -> int:
    """Read a size such as ``2G``, ``512MiB``, ``1.5g`` or ``65536`` and return bytes.

    Raises UsageError that names the text and the rule.
    """
    digits = text.strip().upper()
    for ending in ("IB", "B"):
        if digits.endswith(ending):
            digits = digits.removesuffix(ending)
            break
    suffix = digits[-1:] if digits[-1:].isalpha() else ""
    number = digits.removesuffix(suffix)
    if suffix not in _SUFFIXES or not number or not _is_decimal(number):
        raise UsageError(f"{text!r} is not a size: {_SIZE_RULE}", remedy="write for example 2G")
    whole, _, fraction = number.partition(".")
    unit = _SUFFIXES[suffix]
    value_bytes = int(whole or "0") * unit
    if fraction:
        scaled, rest = divmod(int(fraction) * unit, 10 ** len(fraction))
        if rest:
            raise UsageError(
                f"{text!r} is not a whole number of bytes: {_SIZE_RULE}",
                remedy="use a smaller unit",
            )
        value_bytes += scaled
    return value_bytes


def _is_decimal(number: str) -> bool:
    whole, dot, fraction = number.partition(".")
    parts = [whole, fraction] if dot else [whole]
    return number.isascii() and all(part.isdigit() for part in parts)


def parse_offset_bytes(text: str) -> int:
    """Read a byte offset: decimal, ``0x`` hexadecimal, or a size such as ``1M``."""
    if text.strip().lower().startswith("0x"):
        try:
            return int(text, 16)
        except ValueError:
            raise UsageError(
                f"{text!r} is not an offset: 0x must be followed by hexadecimal digits",
                remedy="write for example 0x1000",
            ) from None
    return parse_size_bytes(text)


def format_size(value_bytes: float) -> str:
    """Print bytes as zramctl does: three digits at most and a unit, ``1.2G``; exact below 1 K."""
    value = float(value_bytes)
    for suffix in ("B", "K", "M", "G", "T"):
        if abs(value) < 999.5 or suffix == "T":
            break
        value /= 1024
    if suffix == "B":
        return f"{int(value)}B"
    return f"{value:.1f}{suffix}" if abs(value) < 99.95 else f"{value:.0f}{suffix}"
