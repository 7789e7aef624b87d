"""What `top` shows: the model as lines of text, for any width and height from 80x23 on.

Owns the layout. Never computes more than shares of a whole, never asks for a sample, knows nothing
of keys. Always holds: nothing is told by colour alone; states differ by their character.
"""

import time
from typing import Final, NamedTuple

from rich.text import Text

from vswapfs.ctl import status as status_table
from vswapfs.ctl.history import History, Rate
from vswapfs.ctl.instances import State
from vswapfs.ctl.render import NOTHING, format_span
from vswapfs.format.message import TierStatus
from vswapfs.units import PAGE_BYTES, format_size

WIDTH_MIN: Final = 80
_LABEL: Final = 10
_BAR: Final = 24
_TIER_WIDTH: Final = 63
"""Of a line about a tier, all but its path."""

_STATES: Final = (
    ("pool", "█", "green"),
    ("disk", "▓", "blue"),
    ("same", "▒", "cyan"),
    ("zero", "░", "white"),
    ("empty", "·", "dim"),
)
_SPARKS: Final = "▁▂▃▄▅▆▇█"
_TRAFFIC: Final = (
    ("stores", "pages.stored_total"),
    ("loads", "pages.loaded_total"),
    ("discards", "pages.discarded_total"),
)
_PERCENTS: Final = (50, 90, 99)


class Shown(NamedTuple):
    """What the screen says beside the model."""

    interval_s: float
    paused: bool = False
    source: str = ""
    """Where samples come from, if not from the daemon."""
    notice: str = ""
    """Why there are no new samples."""


def draw(history: History, shown: Shown, width: int, height: int) -> Text:
    """The screen, ``height`` lines at most as long as there are few tiers and warnings."""
    width = max(width, WIDTH_MIN)
    lines = [
        _title(history, shown, width),
        *_area(history, width),
        Text(),
        *_traffic(history, width),
        *_latency(history),
        Text(),
        *_pool(history),
        *_memory(history),
        Text(),
    ]
    warnings = _warnings(history)
    left = height - len(lines) - bool(shown.notice)
    lines += _tiers(history, width, max(2, left - min(len(warnings), 3)))
    room = max(1, height - len(lines) - bool(shown.notice))
    if len(warnings) > room:
        more = f"and {len(warnings) - room + 1} more: vswapctl status {history.latest.status.name}"
        warnings[room - 1 :] = [more]
    lines += [_warning(text, width) for text in warnings]
    if shown.notice:
        lines.insert(1, Text(f" ! {shown.notice}"[:width], style="bold reverse"))
    return Text("\n").join(_printable(line) for line in lines)


def _printable(line: Text) -> Text:
    """Names, paths and reasons are those of whoever made the recording; none may command the
    terminal."""
    if not line.plain.isprintable():
        line.plain = "".join(each if each.isprintable() else "·" for each in line.plain)
    return line


def _title(history: History, shown: Shown, width: int) -> Text:
    status = history.latest.status
    left = Text(f"{status.name}", style="bold")
    left.append(
        f"  {shown.source or 'running'}  up {format_span(status.uptime_s)}"
        f"  worker {status.worker_pid}  {status.version}",
        style="not bold",
    )
    clock = time.strftime("%H:%M:%S", time.localtime(history.latest.unix_s))
    pace = "PAUSED" if shown.paused else f"every {shown.interval_s:g}s"
    return _ends(left, Text(f"{pace}  {clock}"), width)


def _ends(left: Text, right: Text, width: int) -> Text:
    left.truncate(max(0, width - right.cell_len - 1))
    left.pad_right(max(1, width - left.cell_len - right.cell_len))
    return left + right


def _area(history: History, width: int) -> list[Text]:
    status = history.latest.status
    kernel = NOTHING if status.swap_used_bytes is None else format_size(status.swap_used_bytes)
    device = "no swap" if status.loop_device is None else status.loop_device
    if status.swap_priority is not None:
        device += f" prio {status.swap_priority}"
    first = _labelled("area")
    first.append(
        f"{_of(status.used_bytes, status.size_bytes)}  kernel {kernel}"
        f"  saved {format_size(status.saved_bytes)}  {device}"
    )
    total = sum(status.pages.values()) or 1
    bar, legend = Text(), []
    for name, character, style in _STATES:
        pages = status.pages.get(name, 0)
        bar.append(character * max(pages > 0, round(pages * width / total)), style)
        held = format_size(pages * PAGE_BYTES)
        share = f" {pages / total:.0%}" if pages else ""
        legend.append(Text.assemble((character, style), f" {name} {held}{share}"))
    return [first, bar[:width], Text("  ").join(legend)]


def _traffic(history: History, width: int) -> list[Text]:
    count = width - _LABEL - 3 * 10 - 2
    heading = _labelled("traffic")
    heading.append(
        f"{'bytes/s':>10}{'pages/s':>10}{'most':>10}  {f'{count} samples':>{count}}", "dim"
    )
    lines = [heading]
    for name, key in _TRAFFIC:
        rates = history.rates(key, count)
        known = [rate for rate in rates if rate is not None]
        most = max(known, default=0.0)
        line = Text(f"  {name}".ljust(_LABEL))
        now = rates[-1] if rates else None
        line.append(f"{_speed(now, PAGE_BYTES):>10}{_count(now):>10}")
        line.append(f"{_speed(most, PAGE_BYTES) if known else NOTHING:>10}  ")
        line.append("".join(_spark(rate, most) for rate in rates).rjust(count), "green")
        lines.append(line)
    return lines


def _spark(rate: Rate, most: float) -> str:
    if rate is None:
        return " "
    return _SPARKS[round(max(0.0, rate) / most * (len(_SPARKS) - 1))] if most > 0 else _SPARKS[0]


def _latency(history: History) -> list[Text]:
    columns = "".join(f"{f'p{percent}':>8}" for percent in _PERCENTS)
    heading = _labelled("latency").append(f"{columns}  in 10 s{columns}  since start", "dim")
    lines = [heading]
    for name, key in (("load", "latency.load"), ("store", "latency.store")):
        lately = (history.latency_us(key, percent) for percent in _PERCENTS)
        always = (history.value(f"{key}_p{percent}_us") for percent in _PERCENTS)
        line = Text(f"  {name}".ljust(_LABEL))
        line.append("".join(f"{_us(value):>8}" for value in lately))
        line.append(" " * len("  in 10 s"))
        line.append("".join(f"{_us(value):>8}" for value in always))
        lines.append(line)
    return lines


def _pool(history: History) -> list[Text]:
    status = history.latest.status
    raw = history.value("pages.incompressible") or 0
    stored = sum(status.pages.get(state, 0) for state in ("pool", "disk")) or 1
    pool = _labelled("pool")
    pool.append(_bar(status.pool_used_bytes, status.pool_limit_bytes), "green")
    pool.append(f" {_of(status.pool_used_bytes, status.pool_limit_bytes)}")
    detail = Text(" " * _LABEL)
    detail.append(
        f"ratio {_figure(history.value('pool.ratio'), '.2f')}"
        f"  density {_figure(history.value('pool.density_pct'), '.1f')}%"
        f"  incompressible {raw / stored:.1%}"
        f"  metadata {format_size(history.value('metadata_bytes') or 0)}"
    )
    cleaner = _labelled("cleaner")
    cleaner.append(
        f"{_speed(history.rate('cleaner.moved_bytes_total'))} moved"
        f"  {_count(history.rate('cleaner.segments_total'))} segments/s"
        f"  {_count(history.rate('cleaner.recompressed_pages_total'))} pages/s recompressed"
    )
    disk = _labelled("disk")
    out = history.tiers_rate("written_bytes")
    at_work = "writing back" if history.value("disk.writing_back") or out else "at rest"
    disk.append(f"{at_work}  {_speed(out)} out  {_speed(history.tiers_rate('read_bytes'))} in")
    budget, left = history.value("budget.per_day_bytes"), history.value("budget.left_bytes")
    if budget is not None:
        disk.append(f"  budget {format_size(left or 0)} of {format_size(budget)} left")
    return [pool, detail, cleaner, disk]


def _memory(history: History) -> list[Text]:
    total = history.value("memory.total_bytes") or 0
    available = history.value("memory.available_bytes") or 0
    pressure = history.value("memory.pressure_pct")
    line = _labelled("memory")
    line.append(_bar(total - available, total), "yellow")
    line.append(f" {format_size(available)} of {format_size(total)} available")
    line.append("  no PSI here" if pressure is None else f"  pressure {pressure:.1f}%")
    return [line]


def _tiers(history: History, width: int, room: int) -> list[Text]:
    tiers = history.latest.status.tiers
    if not tiers:
        line = _labelled("tiers")
        return [line.append("none: what does not fit in the pool stays with the kernel", "dim")]
    path_width = width - _TIER_WIDTH
    heading = _labelled("tiers")
    heading.append(f"{'path':<{path_width + 12}}{'used of size':<19}", "dim")
    heading.append(f"{'written':>9}{'read':>9}{'err':>4}", "dim")
    lines = [heading]
    for number, tier in enumerate(tiers):
        if len(lines) == room - 1 and number < len(tiers) - 1:
            lines.append(Text(f"  and {len(tiers) - number} more: vswapctl tier list"))
            break
        lines.append(_tier(history, tier, path_width))
    return lines


def _tier(history: History, tier: TierStatus, path_width: int) -> Text:
    path = tier.path if len(tier.path) <= path_width else f"…{tier.path[1 - path_width :]}"
    line = Text(f"  {tier.state}".ljust(_LABEL), "" if tier.state == "ok" else "bold")
    line.append(f"{path:<{path_width}} ")
    line.append(_bar(tier.used_bytes, tier.size_bytes, 10), "blue")
    line.append(
        f" {_of(tier.used_bytes, tier.size_bytes):<19}"
        f"{_speed(history.tier_rate(tier, 'written_bytes')):>9}"
        f"{_speed(history.tier_rate(tier, 'read_bytes')):>9}"
        f"{tier.write_errors + tier.read_errors:>4}"
    )
    return line


def _warnings(history: History) -> list[str]:
    status = history.latest.status
    found = []
    for key, what in (
        ("checksum_errors", "loads refused, their record was not verifiable: vswapctl lost"),
        ("internal_errors", "requests failed by a defect: see the log"),
        ("damaged_descriptors", "damaged descriptors: vswapctl check"),
    ):
        if count := history.value(key):
            found.append(f"{count:g} {what}")
    row = status_table.Row(status.name, State.RUNNING, status)
    told = (text.removeprefix(f"{status.name}: ") for text in status_table.warnings(row))
    return found + [text.replace("\n ", ";") for text in told]


def _warning(text: str, width: int) -> Text:
    line = Text(f"warning: {text}", "yellow")
    line.truncate(width, overflow="ellipsis")
    return line


# -- words and figures ------------------------------------------------------------------------


def _labelled(name: str) -> Text:
    return Text(name.ljust(_LABEL), "bold").append("", "not bold")


def _of(part: float, whole: float) -> str:
    """``300M of 1.0G 29%``"""
    share = f" {part / whole:.0%}" if whole else ""
    return f"{format_size(part)} of {format_size(whole)}{share}"


def _bar(part: float, whole: float, width: int = _BAR) -> str:
    filled = round(min(1.0, max(0.0, part / whole)) * (width - 2)) if whole else 0
    return f"[{'#' * filled}{'-' * (width - 2 - filled)}]"


def _speed(rate: Rate, unit_bytes: int = 1) -> str:
    return NOTHING if rate is None else f"{format_size(rate * unit_bytes)}/s"


def _count(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _figure(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _us(value: float | None) -> str:
    """A time with a unit: ``5.1us``, ``120us``, ``3.4ms``."""
    if value is None:
        return NOTHING
    for unit, scale in (("us", 1), ("ms", 1e3), ("s", 1e6)):
        if value / scale < 999.5 or unit == "s":
            break
    scaled = value / scale
    return f"{scaled:.1f}{unit}" if scaled < 99.95 else f"{scaled:.0f}{unit}"
