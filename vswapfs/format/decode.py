"""JSON of others, decoded: what it is not is always told by the same exception.

Owns that rule. msgspec itself raises RecursionError for what is nested too deeply, and
UnicodeDecodeError for text that is not UTF-8.
"""

from typing import TypeVar

import msgspec

_T = TypeVar("_T")


def decode(decoder: msgspec.json.Decoder[_T], line: bytes | str) -> _T:
    """Raises msgspec.MsgspecError (ValueError) on anything that is not of the decoder's type."""
    try:
        return decoder.decode(line)
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(f"JSON is malformed: {error}") from None
