"""Control messages: what the commands and the daemon say to each other.

Owns their fields. JSON, one object a line, at most LINE_MAX_BYTES; ``type`` tells which message it
is. The client sends one request a connection; the daemon answers with any number of Step or
Descriptors lines and ends with exactly one of Status, Stats, Findings, Done or Failure. On the
pipe to the command that started it, the daemon writes Step lines and one Ready or Failure.
"""

from typing import Any, Final

import msgspec

LINE_MAX_BYTES: Final = 1 << 20

STATES: Final = ("empty", "zero", "same", "pool", "disk")
SAME_FILLED: Final = ("zero", "same", "off")


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """All that a daemon is told at its start."""

    name: str
    mountpoint: str
    size_bytes: int
    same_filled: str
    swap: bool
    """Whether to go on to losetup, mkswap and swapon."""
    pool_limit_bytes: int | None = None
    """None: the size of the area, at most a quarter of the machine's memory."""
    priority: int | None = None
    allow_unlocked: bool = False
    """Start even where memory cannot be locked."""


# -- requests ---------------------------------------------------------------------------------


class AskStatus(msgspec.Struct, tag="status"):
    """Answered with Status."""


class AskStats(msgspec.Struct, tag="stats"):
    """Answered with Stats."""


class AskDescriptors(msgspec.Struct, tag="desc"):
    """Pages that overlap bytes [start_bytes, end_bytes); answered with Descriptors lines, Done."""

    start_bytes: int
    end_bytes: int
    state: str | None = None


class AskCheck(msgspec.Struct, tag="check"):
    """Check all structural invariants; page I/O waits meanwhile. Answered with Findings."""


class AskOff(msgspec.Struct, tag="off"):
    """Swap off, detach, unmount, end. Answered with Step lines and Done when all is down."""


Request = AskStatus | AskStats | AskDescriptors | AskCheck | AskOff

# -- answers ----------------------------------------------------------------------------------


class Outcome(msgspec.Struct):
    """One protection of the host: whether it holds, and what was found."""

    name: str
    ok: bool
    detail: str


class Status(msgspec.Struct, tag="status"):
    name: str
    pid: int
    version: str
    uptime_s: float
    mountpoint: str
    size_bytes: int
    used_bytes: int
    """Slots that hold a page, in bytes."""
    loop_device: str | None
    swap_used_bytes: int | None
    """What the kernel counts as used, when the area is active as swap."""
    swap_priority: int | None
    pages: dict[str, int]
    ratio: float | None
    """Original bytes over record bytes of the pages in the pool."""
    saved_bytes: int
    """Bytes of all pages held, less pool and metadata."""
    pool_limit_bytes: int
    pool_used_bytes: int
    same_filled: str
    hardening: list[Outcome]


class Stats(msgspec.Struct, tag="stats"):
    """Values by dotted key, as in core/stats.py."""

    values: dict[str, int]


class Descriptor(msgspec.Struct, omit_defaults=True):
    """One page: where it is now. What does not apply is absent."""

    offset: int
    state: str
    fill: str | None = None
    segment: int | None = None
    segment_offset: int | None = None
    stored_bytes: int | None = None
    codec: str | None = None
    ratio: float | None = None
    checksum: str | None = None
    verified: bool | None = None
    error: str | None = None
    """Why it could not be verified."""


class Descriptors(msgspec.Struct, tag="descriptors"):
    descriptors: list[Descriptor]


class Findings(msgspec.Struct, tag="findings"):
    """What check found; empty when all invariants hold."""

    findings: list[str]


class Step(msgspec.Struct, tag="step"):
    """A step that is about to be done, in words for a person."""

    text: str


class Ready(msgspec.Struct, tag="ready"):
    """The instance is up."""

    mountpoint: str
    loop_device: str | None


class Done(msgspec.Struct, tag="done"):
    """All that was asked for is done."""


class Failure(msgspec.Struct, tag="failure"):
    message: str
    remedy: str
    exit_code: int


Answer = Status | Stats | Descriptors | Findings | Step | Ready | Done | Failure

_encoder = msgspec.json.Encoder()
_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
_configs = msgspec.json.Decoder(Config)


def encode(message: Any) -> bytes:
    """A message as one line."""
    return _encoder.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """Raises msgspec.MsgspecError (ValueError) on anything that is not a request."""
    return _requests.decode(line)


def decode_answer(line: bytes) -> Answer:
    return _answers.decode(line)


def decode_config(line: bytes | str) -> Config:
    return _configs.decode(line)
