"""`vswapctl status`: the table of its columns, and what is shown of each instance.

Owns the columns; what a figure means, the field table tells. Help, headings, cells and --output are
all read from COLUMNS, so they cannot disagree. Never computes a figure beyond pages times page
size. A cell without a value is ``-``.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from vswapfs.core.stats import BY_KEY
from vswapfs.ctl import client, instances
from vswapfs.ctl.instances import State
from vswapfs.ctl.render import NOTHING, Heading, format_span
from vswapfs.errors import InstanceError, UsageError
from vswapfs.format.message import AskStatus, Status
from vswapfs.units import PAGE_BYTES, format_size


class Row(NamedTuple):
    """An instance, with its Status, or with the error that tells why there is none."""

    name: str
    state: State
    status: Status | None = None
    error: InstanceError | None = None


Value = str | int | None


class Column(NamedTuple):
    name: str
    help: str
    value: Callable[[Row], Value]
    right: bool = True
    size: bool = False
    """The value is bytes, printed with a unit."""
    default: bool = True

    @property
    def heading(self) -> Heading:
        return Heading(self.name, self.right)


def _of(value: Callable[[Status], Value]) -> Callable[[Row], Value]:
    return lambda row: None if row.status is None else value(row.status)


def _pages(state: str) -> Callable[[Row], Value]:
    return _of(lambda status: status.pages[state] * PAGE_BYTES if state in status.pages else None)


def _ratio(status: Status) -> Value:
    return None if status.ratio is None else f"{status.ratio:.2f}"


def _pause(status: Status) -> Value:
    return None if status.last_pause_ms is None else f"{status.last_pause_ms:.1f}ms"


def _figure(
    name: str, key: str, value: Callable[[Row], Value], *, size: bool = False, default: bool = True
) -> Column:
    """A column of a figure that the field table explains."""
    return Column(name, BY_KEY[key].help, value, size=size, default=default)


COLUMNS: tuple[Column, ...] = (
    Column("NAME", "name of the instance", lambda row: row.name, right=False),
    Column("STATE", "running, or dead", lambda row: row.state.value, right=False),
    _figure("SIZE", "area.size_bytes", _of(lambda s: s.size_bytes), size=True),
    _figure("USED", "area.used_bytes", _of(lambda s: s.used_bytes), size=True),
    Column("DEVICE", "loop device", _of(lambda s: s.loop_device), right=False),
    Column("PRIO", "priority as swap", _of(lambda s: s.swap_priority)),
    _figure("ZERO", "pages.zero", _pages("zero"), size=True),
    _figure("SAME", "pages.same", _pages("same"), size=True),
    _figure("POOL", "pages.pool", _pages("pool"), size=True),
    _figure("DISK", "pages.disk", _pages("disk"), size=True),
    _figure("RATIO", "pool.ratio", _of(_ratio)),
    _figure("SAVED", "saved_bytes", _of(lambda s: s.saved_bytes), size=True),
    _figure("POOL-USED", "pool.used_bytes", _of(lambda s: s.pool_used_bytes), size=True),
    _figure("POOL-LIMIT", "pool.limit_bytes", _of(lambda s: s.pool_limit_bytes), size=True),
    _figure("UPTIME", "uptime_s", _of(lambda s: format_span(s.uptime_s))),
    _figure("EMPTY", "pages.empty", _pages("empty"), size=True, default=False),
    _figure(
        "SWAP-USED",
        "area.swap_used_bytes",
        _of(lambda s: s.swap_used_bytes),
        size=True,
        default=False,
    ),
    Column(
        "SAME-FILLED", "scope of markers", _of(lambda s: s.same_filled), right=False, default=False
    ),
    Column("PID", "process that serves: the worker", _of(lambda s: s.pid), default=False),
    Column(
        "SUPERVISOR", "process that replaces it", _of(lambda s: s.supervisor_pid), default=False
    ),
    Column("STANDBY", "process that would be next", _of(lambda s: s.standby_pid), default=False),
    Column(
        "SURVIVAL",
        "requests in flight come by resend, journal; or none",
        _of(lambda s: s.survival),
        right=False,
        default=False,
    ),
    _figure("TAKEOVERS", "succession.takeovers", _of(lambda s: s.takeovers), default=False),
    _figure("PAUSE", "succession.last_pause_ms", _of(_pause), default=False),
    Column(
        "VERSION", "version of the daemon", _of(lambda s: s.version), right=False, default=False
    ),
    Column("MOUNTPOINT", "mount point", _of(lambda s: s.mountpoint), right=False, default=False),
)


def help_text() -> str:
    """The columns for --help; those shown by default have a star."""
    lines = (f"  {'*' if c.default else ' '} {c.name:<12} {c.help}" for c in COLUMNS)
    return "\n".join(("\b", "Columns for --output (* shown by default):", *lines))


def select(text: str | None) -> list[Column]:
    """The columns named in a list with commas, or the default ones.

    Raises UsageError that lists all names.
    """
    if text is None:
        return [column for column in COLUMNS if column.default]
    by_name = {column.name: column for column in COLUMNS}
    wanted = [name.strip().upper() for name in text.split(",")]
    if unknown := [name for name in wanted if name not in by_name]:
        raise UsageError(
            f"no such column: {', '.join(unknown)}", remedy=f"choose from {', '.join(by_name)}"
        )
    return [by_name[name] for name in wanted]


def gather(name: str | None) -> Iterator[Row]:
    """Ask the instance, or all. One that does not answer does not hide the others.

    Raises InstanceError if ``name`` is given and there is no such instance.
    """
    if name is not None:
        row = _gather_one(name)
        if row is None:
            raise instances.no_such_instance(name)
        yield row
        return
    for each in instances.names():
        if row := _gather_one(each):
            yield row


def _gather_one(name: str) -> Row | None:
    error = None
    if instances.find(name) is State.RUNNING:
        try:
            return Row(name, State.RUNNING, client.ask(name, AskStatus(), Status))
        except InstanceError as caught:
            error = caught
    # Looked at again, as it may have ended while it was asked.
    match instances.find(name):
        case None:
            return None
        case State.DEAD:
            return Row(name, State.DEAD, error=instances.dead_instance(name))
        case State.RUNNING:
            return Row(name, State.RUNNING, error=error)


def cells(row: Row, columns: Sequence[Column], *, exact: bool) -> list[str]:
    """The row as text; ``exact`` gives sizes in bytes."""
    return [_cell(column.value(row), column.size and not exact) for column in columns]


def _cell(value: Value, as_size: bool) -> str:
    if value is None:
        return NOTHING
    return format_size(value) if as_size and isinstance(value, int) else str(value)


def as_object(row: Row) -> dict[str, Any]:
    """The row for JSON: all fields of Status, and its state."""
    told = {} if row.status is None else msgspec.to_builtins(row.status)
    told.pop("type", None)
    found = {"name": row.name, "state": row.state.value, **told}
    if row.error is not None:
        found |= {"error": row.error.message, "remedy": row.error.remedy}
    return found


def warnings(row: Row) -> list[str]:
    """What its reader should not miss, a line each."""
    if row.error is not None:
        return [f"{row.error.message}\n  try: {row.error.remedy}"]
    if row.status is None:
        return []
    status, name = row.status, row.name
    refused = [f"{name}: {out.name}: {out.detail}" for out in status.hardening if not out.ok]
    waits = [f"{name}: tier {tier.path}: {tier.detail}" for tier in status.tiers if tier.detail]
    full = []
    if status.refused_writes:
        full = [
            f"{name}: {status.refused_writes} writes refused since its worker began: the pool was "
            f"full, and no tier took more; these pages stayed in RAM\n  try: vswapctl set {name} "
            f"pool-limit=SIZE, or vswapctl tier add {name} PATH:SIZE"
        ]
    alone = []
    if status.survival == "none":
        alone = [
            f"{name}: does not survive its worker: this kernel has no tmpfs that is never swapped "
            f"out (Linux 6.4); its memory is locked"
        ]
    elif status.supervisor_pid is None:
        alone = [f"{name}: its supervisor has ended\n  try: vswapctl adopt {name}"]
    return full + refused + waits + alone
