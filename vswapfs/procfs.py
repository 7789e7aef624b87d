"""Files of /proc and /sys as text.

Owns how their bytes become text and lines. Names of files, mounts and processes in them are
anybody's, and may have any byte: of those that end a line, or a word, elsewhere the kernel escapes
only space, tab and newline. Raises OSError only.
"""

import os
from pathlib import Path


def text(path: Path) -> str:
    """The whole file. Bytes that are not UTF-8 are kept as os.fsencode gives them back."""
    return os.fsdecode(path.read_bytes())


def lines(path: Path) -> list[str]:
    """Without their ends. To be split at single spaces, where there are names in them."""
    found = text(path)
    return found.removesuffix("\n").split("\n") if found else []


def printable(name: str) -> str:
    """A name as it can be shown, whatever bytes are in it."""
    return os.fsencode(name).decode(errors="replace")
