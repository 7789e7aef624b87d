"""The forms of words that need more than a size: PATH:SIZE, SIZE/day, an age, an amount.

Owns their syntax and the errors that teach it. Never looks at what a path leads to: that it is
fit for a tier is for the daemon to find out.
"""

import re
from pathlib import Path
from typing import Final

from vswapfs.errors import UsageError
from vswapfs.format.message import TierConfig
from vswapfs.units import parse_size_bytes

_AGE: Final = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_TIER_RULE: Final = "a tier is PATH:SIZE, what follows the last colon being the size"
_TIER_REMEDY: Final = "write for example /dev/sdb1:32G or /var/swap.tier:32G"
_IMAGE_RULE: Final = "an image area is PATH:SIZE, what follows the last colon being the size"
_IMAGE_REMEDY: Final = "write for example /dev/sda3:8G"
_BUDGET_RULE: Final = "a write budget is SIZE/day"
_BUDGET_REMEDY: Final = "write for example 20G/day"


def parse_tier(text: str, *, overwrite: bool = False) -> TierConfig:
    """Read ``PATH:SIZE``. Raises UsageError."""
    path, size_bytes = _path_and_size(text, "a tier", _TIER_RULE, _TIER_REMEDY)
    return TierConfig(path, size_bytes, overwrite)


def parse_image(text: str) -> tuple[str, int]:
    """Read ``PATH:SIZE`` of an image area; path and bytes. Raises UsageError."""
    return _path_and_size(text, "an image area", _IMAGE_RULE, _IMAGE_REMEDY)


def _path_and_size(text: str, what: str, rule: str, remedy: str) -> tuple[str, int]:
    path, _, size = text.rpartition(":")
    if not path:
        raise UsageError(f"{text!r} is not {what}: {rule}", remedy=remedy)
    try:
        size_bytes = parse_amount_bytes(size)
    except UsageError as error:
        raise UsageError(
            f"{text!r} is not {what}: {rule}; {error.message}", remedy=remedy
        ) from None
    return absolute(path), size_bytes


def absolute(path: str) -> str:
    """The path as the daemon knows it. Links stay: those below /dev/disk outlive a reboot.

    Raises UsageError.
    """
    if not path:
        raise UsageError("'' is not a path: it is empty", remedy="give one that tier list shows")
    if "\0" in path or any("\ud800" <= character <= "\udfff" for character in path):
        raise UsageError(
            f"{path!r} is not a path that the daemon can be told: it has to be UTF-8, without a "
            "zero byte",
            remedy="a link with another name leads there too",
        )
    if any(character < " " or character == "\x7f" for character in path):
        raise UsageError(
            f"{path!r} has a control character in it, which no table could show",
            remedy="a link with another name leads there too",
        )
    try:
        return str(Path(path).absolute())
    except FileNotFoundError:
        raise UsageError(
            f"{path!r} begins where you are, and that directory has been removed",
            remedy="give the path from / on",
        ) from None


def parse_budget_bytes(text: str) -> int:
    """Read ``SIZE/day`` and return bytes per day. Raises UsageError."""
    size, _, span = text.strip().partition("/")
    if span.lower() != "day":
        raise UsageError(f"{text!r} is not a write budget: {_BUDGET_RULE}", remedy=_BUDGET_REMEDY)
    try:
        return parse_amount_bytes(size)
    except UsageError as error:
        raise UsageError(
            f"{text!r} is not a write budget: {_BUDGET_RULE}; {error.message}",
            remedy=_BUDGET_REMEDY,
        ) from None


def parse_amount_bytes(text: str) -> int:
    """Read a size that may not be 0. Raises UsageError."""
    size_bytes = parse_size_bytes(text)
    if size_bytes == 0:
        raise UsageError(f"{text!r} is too small: it has to be above 0", remedy="write e.g. 2G")
    return size_bytes


def parse_age_s(text: str) -> float:
    """Read an age such as ``30s``, ``5m``, ``2h`` or ``1d``. Raises UsageError."""
    found = _AGE.fullmatch(text.strip().lower())
    if not found:
        raise UsageError(
            f"{text!r} is not an age: an age is a whole number with s, m, h or d",
            remedy="write for example 30s, 5m, 2h or 1d",
        )
    return float(int(found[1]) * _SECONDS[found[2]])
