"""Control messages: what the commands and the daemon say to each other.

Owns their fields. JSON, one object a line, at most LINE_MAX_BYTES; ``type`` tells which message it
is. The client sends one request a connection; the daemon answers with any number of lines of the
kinds in PARTS and ends with exactly one of the others, Done or Failure. On the pipe to the command
that started it, the daemon writes Step lines and one Ready, Done or Failure.
"""

from typing import Any, Final, Literal

import msgspec

from vswapfs.format import settings
from vswapfs.format.decode import decode
from vswapfs.format.settings import AskSet, Changed
from vswapfs.format.table import Area, AskTable, Segments, Words
from vswapfs.format.trace import AskTrace, Events

LINE_MAX_BYTES: Final = 1 << 20

STATES: Final = ("empty", "zero", "same", "pool", "disk")
SAME_FILLED: Final = ("zero", "same", "off")


class TierConfig(msgspec.Struct, forbid_unknown_fields=True):
    """A file or block device and how much of it to use."""

    path: str
    size_bytes: int
    overwrite: bool = False
    """Take a file or device that already holds something."""


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """All that a daemon is told at its start."""

    name: str
    mountpoint: str
    size_bytes: int
    same_filled: str
    swap: bool
    """Whether to go on to losetup, mkswap and swapon."""
    pool_limit_bytes: int | Literal["auto"] | None = None
    """``auto``: as much as the machine can spare now. None: the size of the area, at most a
    quarter of the machine's memory."""
    priority: int | None = None
    allow_unlocked: bool = False
    """Start even where memory cannot be locked."""
    tiers: list[TierConfig] = []
    """In order: the first is filled first."""
    write_budget_bytes_per_day: int | None = None
    encrypt: bool = False
    """Whether what is written to tiers is encrypted, under a key that nobody else has."""
    recompress: bool = False
    """Compress cold pages again, stronger, in idle time."""
    recompress_level: int = settings.RECOMPRESS_LEVEL.default
    writeback_start_pct: int = settings.WRITEBACK_START_PCT.default
    writeback_stop_pct: int = settings.WRITEBACK_STOP_PCT.default
    polling_window_us: int = settings.POLLING_WINDOW_US.default
    log_level: str = settings.LOG_LEVELS[0]


# -- requests ---------------------------------------------------------------------------------


class AskStatus(msgspec.Struct, tag="status"):
    """Answered with Status."""


class AskStats(msgspec.Struct, tag="stats"):
    """Answered with Stats."""


class AskSample(msgspec.Struct, tag="sample"):
    """Answered with Sample."""


class AskDescriptors(msgspec.Struct, tag="desc"):
    """Pages that overlap bytes [start_bytes, end_bytes); answered with Descriptors lines, Done."""

    start_bytes: int
    end_bytes: int
    state: str | None = None


class AskCheck(msgspec.Struct, tag="check"):
    """Check all structural invariants; page I/O waits meanwhile. Answered with Findings
    lines, Done."""


class AskOff(msgspec.Struct, tag="off"):
    """Swap off, detach, unmount, end. Answered with Step lines and Done when all is down."""


class AskTiers(msgspec.Struct, tag="tier-list"):
    """Answered with Tiers."""


class AskTierAdd(msgspec.Struct, tag="tier-add"):
    """Answered with Done once pages may go to it."""

    tier: TierConfig


class AskTierRemove(msgspec.Struct, tag="tier-remove"):
    """Move everything off the tier while swap stays in use. Answered with Progress lines, Done."""

    path: str


class AskWriteback(msgspec.Struct, tag="writeback"):
    """Write sealed segments to the tiers now. Answered with Progress lines, Done.

    All of them, or those idle for ``idle_s`` seconds, or incompressible ones, up to ``max_bytes``.
    """

    idle_s: float = 0.0
    incompressible: bool = False
    max_bytes: int | None = None


class AskDrain(msgspec.Struct, tag="drain"):
    """Read the tiers, in the order they lie, back into RAM. Answered with Progress lines, Done."""


class AskLost(msgspec.Struct, tag="lost"):
    """Answered with Lost lines, Done."""


class AskScrub(msgspec.Struct, tag="scrub"):
    """Read every record on the tiers and verify it. Answered with Progress and
    ScrubFindings lines, then Scrubbed."""

    rate_bytes_per_s: int | None = None


class AskRestart(msgspec.Struct, tag="restart"):
    """Hand over to a fresh worker of the version that is installed. Answered with Failure, or with
    Step lines and the end of the connection, because who answers is replaced."""


class AskAdopt(msgspec.Struct, tag="adopt"):
    """Process ``pid`` is going to be the supervisor. Answered with Handover."""

    pid: int


Request = (
    AskRestart
    | AskAdopt
    | AskStatus
    | AskStats
    | AskSample
    | AskDescriptors
    | AskCheck
    | AskOff
    | AskTiers
    | AskTierAdd
    | AskTierRemove
    | AskWriteback
    | AskDrain
    | AskLost
    | AskScrub
    | AskTable
    | AskSet
    | AskTrace
)

# -- answers ----------------------------------------------------------------------------------


class Outcome(msgspec.Struct):
    """One protection of the host: whether it holds, and what was found."""

    name: str
    ok: bool
    detail: str


class TierStatus(msgspec.Struct):
    """One tier, in the order in which they are filled."""

    path: str
    uuid: str
    state: str
    """``ok``, ``failing`` (retried with back-off) or ``leaving`` (being removed)."""
    size_bytes: int
    used_bytes: int
    """Slots in use."""
    live_bytes: int
    """Records of pages in them."""
    written_bytes: int
    read_bytes: int
    trimmed_bytes: int
    write_errors: int
    read_errors: int
    detail: str = ""
    """Why it is failing, or what it waits for."""


class Status(msgspec.Struct, tag="status"):
    name: str
    pid: int
    """The worker."""
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
    tiers: list[TierStatus]
    survival: str
    """How a successor of a killed worker gets the requests in flight: ``resend`` (by the kernel) or
    ``journal`` (ours). ``none``: a killed worker has no successor."""
    supervisor_pid: int | None
    worker_pid: int
    standby_pid: int | None
    takeovers: int
    last_pause_ms: float | None
    """From the end of the worker before this one (or when it was killed by restart) until this one
    began to serve."""
    refused_writes: int = 0
    """Since the worker's start, because the pool was full and no tier took more."""


class Handover(msgspec.Struct, tag="handover"):
    """The worker's descriptors, by the names of daemon/handover.py."""

    pid: int
    descriptors: list[int]


class Histogram(msgspec.Struct):
    """Counts by bucket (format/histogram.py) since the worker's start."""

    counts: list[int]
    sum_us: int


class Stats(msgspec.Struct, tag="stats"):
    """Values by dotted key, as in core/stats.py; one that does not apply is absent."""

    values: dict[str, int | float]
    histograms: dict[str, Histogram] = {}


class Sample(msgspec.Struct, tag="sample"):
    """All that there is to see of an instance at one time."""

    unix_s: float
    status: Status
    stats: Stats


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
    tier: str | None = None
    """Path of the tier that its segment is on."""
    tier_offset: int | None = None
    """Where the record begins there, in bytes."""


class Descriptors(msgspec.Struct, tag="descriptors"):
    descriptors: list[Descriptor]


class Findings(msgspec.Struct, tag="findings"):
    """Of what check found."""

    findings: list[str]


class Tiers(msgspec.Struct, tag="tiers"):
    tiers: list[TierStatus]
    write_budget_bytes_per_day: int | None = None
    write_budget_left_bytes: int | None = None


class Progress(msgspec.Struct, tag="progress"):
    """How far a long command is; a few lines a second at most."""

    done_bytes: int
    total_bytes: int


class LostPage(msgspec.Struct):
    """A page that could not be verified when it was last read, and why."""

    offset: int
    reason: str


class Lost(msgspec.Struct, tag="lost"):
    """Of the pages that are lost."""

    pages: list[LostPage]


class ScrubFinding(msgspec.Struct):
    tier: str
    byte_offset: int
    """Of the record, in the tier's file or device."""
    page_offset: int | None
    reason: str


class ScrubFindings(msgspec.Struct, tag="scrub_findings"):
    findings: list[ScrubFinding]


class Scrubbed(msgspec.Struct, tag="scrubbed"):
    records: int
    scrubbed_bytes: int


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


Answer = (
    Status
    | Handover
    | Stats
    | Sample
    | Descriptors
    | Findings
    | Tiers
    | Progress
    | Lost
    | ScrubFindings
    | Scrubbed
    | Area
    | Segments
    | Words
    | Changed
    | Events
    | Step
    | Ready
    | Done
    | Failure
)

PARTS: Final = (
    Step, Progress, Descriptors, Findings, Lost, ScrubFindings, Area, Segments, Words, Events,
)  # fmt: skip
"""After these lines more follow."""

ENTRIES_A_LINE: Final = 100
"""Of a list of any length: each of them may have the path of a tier in it, 4 KiB."""

_encoder = msgspec.json.Encoder()
_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
_configs = msgspec.json.Decoder(Config)


def encode(message: Any) -> bytes:
    """A message as one line."""
    return _encoder.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """Raises msgspec.MsgspecError (ValueError) on anything that is not a request."""
    return decode(_requests, line)


def decode_answer(line: bytes) -> Answer:
    """Raises msgspec.MsgspecError (ValueError) on anything that is not an answer."""
    return decode(_answers, line)


def decode_config(line: bytes | str) -> Config:
    """Raises msgspec.MsgspecError (ValueError) on anything that is not a configuration."""
    return decode(_configs, line)
