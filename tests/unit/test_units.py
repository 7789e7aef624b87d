"""Sizes and offsets: good, bad and boundary."""

import pytest

from vswapfs.errors import UsageError
from vswapfs.units import format_size, parse_offset_bytes, parse_size_bytes


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1", 1),
        ("65536", 65536),
        ("2G", 2 << 30),
        (" 2g\n", 2 << 30),
        ("512MiB", 512 << 20),
        ("512MB", 512 << 20),
        ("1.5g", 3 << 29),
        ("0.5K", 512),
        ("1.0", 1),
        ("1.0009765625K", 1025),
        ("3B", 3),
        ("007K", 7 << 10),
        ("16T", 16 << 40),
        ("99999999999999999999T", 99999999999999999999 << 40),
    ],
)
def test_size(text: str, size_bytes: int) -> None:
    assert parse_size_bytes(text) == size_bytes
    assert parse_offset_bytes(text) == size_bytes


BAD = [
    *("", " ", "G", "B", "iB", ".", ".5K", "1.", "1.K", "1..5K", "1.5.5K", "-1", "+1", "-1G"),
    *("1 G", "1e3", "1_000", "1E", "1P", "KB", "1KK", "1KBB", "1KiBiB", "nan", "inf", "2G2"),
    *("1,5G", "1.5", "1.0001K", "0.1B", "1\0", "0x", "0b1"),
    *("\u0663", "\uff11K", "\u00b2", "1\u212a", "1k\u0131b"),  # look like digits, K, i
]


@pytest.mark.parametrize(
    "text", [*BAD, "0x10", "9" * 5000, "1." + "5" * 5000 + "K"], ids=lambda text: ascii(text[:12])
)
def test_bad_size_is_named(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size_bytes(text)
    assert repr(text)[:60] in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("text", "offset_bytes"), [("0x0", 0), ("0X1000", 4096), (" 0xfF ", 255), ("1M", 1 << 20)]
)
def test_offset(text: str, offset_bytes: int) -> None:
    assert parse_offset_bytes(text) == offset_bytes


@pytest.mark.parametrize(
    "text", [*BAD, "0xg", "0x-1", "-0x1", "0x1K", "0x 1", "0x1_0", "0x\uff11"], ids=ascii
)
def test_bad_offset_is_named(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_offset_bytes(text)
    assert repr(text)[:60] in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0B"),
        (1, "1B"),
        (999, "999B"),
        (1024, "1.0K"),
        (1536, "1.5K"),
        (99.9 * 1024, "99.9K"),
        (99.96 * 1024, "100K"),
        (999 * 1024, "999K"),
        (999.6 * 1024, "1.0M"),
        ((1 << 20) - 1, "1.0M"),
        (1 << 20, "1.0M"),
        (5 << 30, "5.0G"),
        (1 << 40, "1.0T"),
        (1 << 50, "1024T"),
        (-1536, "-1.5K"),
    ],
)
def test_format(size_bytes: float, text: str) -> None:
    assert format_size(size_bytes) == text
