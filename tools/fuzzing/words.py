"""What people write on command lines: sizes, expressions, offsets, ranges, tiers, budgets, ages.

Each is read, or refused with a UsageError that says something. What was read can be shown again,
and a size that is printed by its digits is read as the same.
"""

import random
from collections.abc import Callable
from typing import Final

from fuzzing.source import Source
from vswapfs.ctl import descriptors, expression, forms, settings, status
from vswapfs.errors import UsageError
from vswapfs.format import instance
from vswapfs.format.message import TierConfig, encode
from vswapfs.units import format_size, parse_offset_bytes, parse_size_bytes

SEEDS: Final = [
    *(bytes([255, number]) + text for number, text in enumerate((
        b"2G", b"1.5GiB", b"0x1000", b"max(ram / 2, 512M)", b"(ram - 2G) * 0.5", b"/dev/x:32G",
        b"20G/day", b"5m", b"0x1000-2M", b"pool-limit=1G", b"NAME,SIZE", b"vswap0",
    ))),
    *(bytes([kind]) + random.Random(kind).randbytes(40) for kind in range(10)),
]  # fmt: skip

_PIECES: Final = (
    "ram", "min(", "max(", "(", ")", "+", "-", "*", "/", ",", " ", "0", "1", "9", ".", "0x", "K",
    "M", "G", "T", "iB", ":", "/day", "s", "m", "h", "d", "auto", "none", "yes", "no", "=", "e",
    "\0", "\n", "²", "٣", "é", "9" * 19, "9" * 400, "1" + "0" * 5000, "\ud800", "_", "/",
)  # fmt: skip
_PIECES_MAX: Final = 300

_PARSERS: Final[tuple[Callable[[str], object], ...]] = (
    parse_size_bytes, parse_offset_bytes, expression.parse_size_or_expression,
    expression.parse_limit, forms.parse_tier, forms.parse_image, forms.parse_budget_bytes,
    forms.parse_amount_bytes, forms.parse_age_s, descriptors.parse_range, instance.check_name,
    status.select, *(each.parse for each in settings._SETTINGS.values()),
)  # fmt: skip


def run(data: bytes) -> None:
    source = Source(data)
    if source.byte() == 255:
        parse = _PARSERS[source.byte() % len(_PARSERS)]
        text = source.rest().decode("utf-8", "surrogateescape")
    else:
        parse = source.choice(_PARSERS)
        pieces: list[str] = []
        while not source.is_empty and len(pieces) < _PIECES_MAX:
            pieces.append(source.choice(_PIECES) * (source.byte() if source.one_in(12) else 1))
        text = "".join(pieces)
    try:
        value = parse(text)
    except UsageError:
        return
    if isinstance(value, int) and not isinstance(value, bool):
        assert value >= 0, f"{text!r} is less than nothing"
        format_size(value)
        assert value >= 10**20 or parse_size_bytes(str(value)) == value
    elif isinstance(value, TierConfig):
        encode(value)
