"""For the initramfs hook: which files resume takes, one a line; the interpreter is the first.

Owns that list. Never copies anything. Always holds: what is not in it, resume does not import.
"""

import os
import sys
from pathlib import Path

import vswapfs.hibernate.__main__ as program

_BY_NAME = ("encodings.ascii", "encodings.latin_1", "encodings.utf_8", "encodings.aliases")
"""What Python loads by itself, by the locale."""


def python() -> str:
    """The interpreter itself: in the initramfs there is no virtual environment."""
    return os.path.realpath(sys.executable)


def path() -> str:
    """PYTHONPATH with which it finds all that is not its own."""
    import xxhash

    parents = (Path(program.__file__).parents[2], Path(xxhash.__file__).parents[1])
    return ":".join(dict.fromkeys(str(parent) for parent in parents))


def files() -> list[str]:
    """Source files and extension modules, without the interpreter."""
    for name in _BY_NAME:
        __import__(name)
    found = (getattr(module, "__file__", None) for module in sys.modules.values())
    return sorted({os.path.realpath(file) for file in found if file})


if __name__ == "__main__":
    if sys.argv[1:] == ["path"]:
        print(path())
    else:
        print(python(), *files(), sep="\n")
