"""Where samples come from: a daemon, or a recording.

Owns the asking and the reading; knows nothing of what is made of samples.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from vswapfs.ctl import client, instances
from vswapfs.errors import HostError, InstanceError, UsageError
from vswapfs.format import recording
from vswapfs.format.message import LINE_MAX_BYTES, AskSample, Sample

_LINE_MAX_BYTES: Final = 1 << 16
_TIMEOUT_S: Final = 3.0


def ask_sample(name: str) -> Sample:
    """Raises what client.ask raises; InstanceError for a daemon that does not know samples."""
    try:
        return client.ask(name, AskSample(), Sample, _TIMEOUT_S)
    except UsageError as error:  # there is nothing in the request that could be wrong
        raise InstanceError(
            f"{name} does not tell samples, its daemon is of another version: {error.message}",
            remedy=f"vswapctl restart {name}",
        ) from None


class Feed(Protocol):
    """What `top` watches."""

    source: str
    """Where samples come from, if not from a daemon."""

    def take(self) -> Sample | None:
        """The sample that is due; None when there will be no more.

        Raises InstanceError while there is none, and RecordingError where a recording is bad.
        """

    def switch(self) -> bool:
        """Go on to the next instance; False if there is no other."""


class Live:
    """A running instance; it may end and come back."""

    source = ""

    def __init__(self, name: str) -> None:
        self._name = name

    def take(self) -> Sample:
        return ask_sample(self._name)

    def switch(self) -> bool:
        names = instances.names()
        later = [name for name in names if name > self._name] + names
        if not later or later[0] == self._name:
            return False
        self._name = later[0]
        return True


class Recorded:
    """A recording, a sample at a time."""

    def __init__(self, path: str) -> None:
        self.source = f"recording {Path(path).name}"
        self.header, self._samples = read(path, Path(path).name)

    def take(self) -> Sample | None:
        return next(self._samples, None)

    def switch(self) -> bool:
        return False


def read(path: str, called: str) -> tuple[recording.Header, Iterator[Sample]]:
    """The header of a recording and its samples, which are read as they are asked for.

    ``called``: how errors name it. Raises UsageError if there is no such file, and RecordingError;
    so does the iterator, and HostError where the file cannot be read on.
    """
    try:
        with Path(path).open("rb") as file:
            header = recording.read_header(file.readline(_LINE_MAX_BYTES), called)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", remedy="give a recording") from None
    return header, _samples(path, called)


def _samples(path: str, called: str) -> Iterator[Sample]:
    try:
        with Path(path).open("rb") as file:
            file.readline(_LINE_MAX_BYTES)
            # One that is longer comes in parts, of which the first has no end: it is cut short.
            lines = iter(lambda: file.readline(LINE_MAX_BYTES), b"")
            yield from recording.read_samples(lines, called)
    except OSError as error:
        raise HostError(f"read {called}", error.strerror or "") from None
