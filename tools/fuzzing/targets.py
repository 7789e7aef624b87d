"""Which targets there are, and their corpora.

Owns the list and where a corpus lies. A target is a module with ``SEEDS``, to begin with, and
``run(data)``, which raises for a finding and returns for everything else.
"""

import importlib
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fuzzing import limits

NAMES: Final = ("lane", "control", "tier", "image", "recording", "config", "words")
ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = ROOT / "tests" / "corpus"
"""What is kept: a directory for each target."""

Run = Callable[[bytes], None]


def summary(name: str) -> str:
    """The first line of the target's docstring."""
    return (importlib.import_module(f"fuzzing.{name}").__doc__ or "").partition("\n")[0]


def runner(name: str) -> Run:
    """The target, with bounded memory."""
    run: Run = importlib.import_module(f"fuzzing.{name}").run

    def bounded(data: bytes) -> None:
        with limits.memory():
            run(data)

    return bounded


def seeds(name: str) -> list[bytes]:
    found: list[bytes] = list(importlib.import_module(f"fuzzing.{name}").SEEDS)
    return found


def corpus(name: str) -> list[Path]:
    return sorted((CORPUS / name).iterdir())


def cpu_seconds() -> float:
    """Of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
