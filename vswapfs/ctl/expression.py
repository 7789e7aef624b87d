"""Sizes that depend on the machine: `min(ram / 2, 8G)`.

Owns their grammar: numbers and sizes, `ram`, + - * /, min, max and parentheses. Never reads more of
the machine than its memory. Exact: rounded once at the end, down to whole MiB.
"""

import os
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from vswapfs.errors import UsageError
from vswapfs.units import parse_size_bytes

_TOKEN: Final = re.compile(r"\s*(?:(\d[\d.]*[a-z]*)|(ram|min|max)\b|([-+*/(),]))", re.IGNORECASE)
_IS_EXPRESSION: Final = re.compile(r"[-+*/(),]|ram", re.IGNORECASE)
_MIB: Final = 1 << 20
_LENGTH_MAX: Final = 200
"""So parentheses cannot be too deep."""
_AMOUNT_MAX: Final = 1 << 63
"""Beyond, nothing is a size, and far beyond, no figure to print."""
_RULE: Final = (
    "an expression has sizes and numbers, ram (the machine's memory), + - * /, min(), max() and "
    "parentheses"
)


def parse_size_or_expression(text: str) -> int:
    """Read a size, or an expression that gives one, rounded down to whole MiB; returns bytes.

    Raises UsageError.
    """
    if not _IS_EXPRESSION.search(text):
        return parse_size_bytes(text)
    value = _Parser(text).value()
    if abs(value) >= _AMOUNT_MAX:
        raise UsageError(
            f"{text!r} is not a size on this machine: it amounts to 2^63 bytes or more",
            remedy="write for example min(ram / 2, 8G)",
        )
    if value < _MIB:
        raise UsageError(
            f"{text!r} is {float(value):g} bytes on this machine: at least 1M is needed",
            remedy="write for example max(ram / 2, 512M)",
        )
    return int(value) // _MIB * _MIB


def parse_limit(text: str) -> int | str:
    """Read a pool limit: a size, an expression, or ``auto``. Raises UsageError."""
    return "auto" if text == "auto" else parse_size_or_expression(text)


def ram_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class _Parser:
    """By recursive descent: a sum of products of factors."""

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > _LENGTH_MAX:
            self._text = f"{text[:20]}..."
            raise self._wrong(f"it is longer than {_LENGTH_MAX} characters")
        self._tokens: list[str] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if not found:
                raise self._wrong(f"{text[at:].split()[0]!r} is not understood")
            self._tokens.append(found[0].strip().lower())
            at = found.end()

    def value(self) -> Fraction:
        value = self._sum()
        if self._tokens:
            raise self._wrong(f"{self._tokens[0]!r} is too much")
        return value

    def _sum(self) -> Fraction:
        value = self._product()
        while (sign := self._take("+", "-")) is not None:
            right = self._product()
            value = value + right if sign == "+" else value - right
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while (sign := self._take("*", "/")) is not None:
            right = self._factor()
            if sign == "/" and not right:
                raise self._wrong("it divides by 0")
            value = value * right if sign == "*" else value / right
        return value

    def _factor(self) -> Fraction:
        if not self._tokens:
            raise self._wrong("it ends too early")
        token = self._tokens.pop(0)
        if token == "ram":
            return Fraction(ram_bytes())
        if token in ("min", "max"):
            self._expect("(")
            return self._extreme(min if token == "min" else max)
        if token == "(":
            value = self._sum()
            self._expect(")")
            return value
        if token[0].isdecimal():
            return self._number(token)
        raise self._wrong(f"{token!r} is not where it can be")

    def _extreme(self, choose: Callable[[list[Fraction]], Fraction]) -> Fraction:
        values = [self._sum()]
        while self._take(",") is not None:
            values.append(self._sum())
        self._expect(")")
        return choose(values)

    def _number(self, token: str) -> Fraction:
        try:
            return Fraction(token) if token[-1].isdecimal() else Fraction(parse_size_bytes(token))
        except (ValueError, UsageError):
            raise self._wrong(f"{token!r} is neither a number nor a size") from None

    def _take(self, *wanted: str) -> str | None:
        return self._tokens.pop(0) if self._tokens and self._tokens[0] in wanted else None

    def _expect(self, wanted: str) -> None:
        if self._take(wanted) is None:
            raise self._wrong(f"{wanted!r} is missing")

    def _wrong(self, why: str) -> UsageError:
        return UsageError(
            f"{self._text!r} is not a size: {why}; {_RULE}",
            remedy="write for example 2G or min(ram / 2, 8G)",
        )
