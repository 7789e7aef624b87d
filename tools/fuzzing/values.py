"""Values for the fields of messages: mostly of the type that is due, sometimes of another.

Owns how a structure is filled from a source. Knows nothing of what a field means, except that a
choice of words makes it likely that one of them is hit.
"""

import types
import typing
from typing import Any, Final

import msgspec

from fuzzing.source import Source

_DEPTH_MAX: Final = 3
_ITEMS_MAX: Final = 4


def message(source: Source, kind: type[msgspec.Struct], words: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a message, as JSON has them; some may be left out, or be too many."""
    found = _struct(source, kind, words, 0)
    if source.one_in(16):
        found[_text(source, words)] = _anything(source, words, 0)
    return found


def _struct(
    source: Source, kind: type[msgspec.Struct], words: tuple[str, ...], depth: int
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if kind.__struct_config__.tag is not None:
        found["type"] = kind.__struct_config__.tag
    for field in msgspec.structs.fields(kind):
        if not source.one_in(9):
            found[field.encode_name] = value(source, field.type, words, depth)
    return found


def value(source: Source, kind: Any, words: tuple[str, ...], depth: int = 0) -> Any:
    """Something for a field of this type."""
    if depth > _DEPTH_MAX or source.one_in(24):
        return _anything(source, words, depth + 1)
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return value(source, source.choice(arguments), words, depth)
    if origin is typing.Literal:
        return source.choice(arguments)
    if origin is list:
        count = source.number(0, _ITEMS_MAX)
        return [value(source, arguments[0], words, depth + 1) for _ in range(count)]
    if origin is dict:
        count = source.number(0, _ITEMS_MAX)
        return {
            _text(source, words): value(source, arguments[1], words, depth + 1)
            for _ in range(count)
        }
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        found = _struct(source, kind, words, depth + 1)
        return list(found.values()) if kind.__struct_config__.array_like else found
    return _plain(source, kind, words)


def _plain(source: Source, kind: Any, words: tuple[str, ...]) -> Any:
    if kind is bool:
        return bool(source.byte() & 1)
    if kind is int:
        return number(source)
    if kind is float:
        return source.choice((0.0, 1.0, -1.0, 0.5, 1e-320, 1e308, -1e308)) * source.byte()
    if kind in (str, bytes):
        return _text(source, words)
    return None


def number(source: Source) -> int:
    found = source.edge((1 << 64) - 1)
    shape = source.byte() % 8
    if shape == 1:
        return -found
    if shape == 2:
        return found << source.byte()
    return found


def _text(source: Source, words: tuple[str, ...]) -> str:
    if source.byte() % 4:
        return source.choice(words)
    return source.take(source.number(0, 40)).decode("utf-8", "replace") * (
        source.byte() if source.one_in(8) else 1
    )


def _anything(source: Source, words: tuple[str, ...], depth: int) -> Any:
    shape = source.byte() % 7
    if shape < 4 or depth > _DEPTH_MAX:
        return _plain(source, source.choice((bool, int, float, str, None)), words)
    if shape == 4:
        return [_anything(source, words, depth + 1) for _ in range(source.number(0, _ITEMS_MAX))]
    if shape == 5:
        return {_text(source, words): _anything(source, words, depth + 1)}
    return _text(source, words) * 1000


def mutilate(source: Source, line: bytes) -> bytes:
    """The encoded message, perhaps with a few bytes changed, cut, or nested deeply."""
    shape = source.byte() % 12
    at = source.number(0, len(line))
    if shape == 1:
        return line[:at] + source.take(8) + line[at:]
    if shape == 2:
        return line[:at]
    if shape == 3:
        return line[:at] + source.take(1) + line[at + 1 :]
    if shape == 4:
        depth = source.number(0, 5000)
        inner = source.choice((b"[", b'{"a":')) * depth
        return line[:1] + b'"x":' + inner + b"," + line[1:]
    if shape == 5:
        return source.rest()
    return line
