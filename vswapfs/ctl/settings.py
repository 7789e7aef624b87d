"""`vswapctl set`: change a setting of an instance that is up.

Owns the keys as people write them, which are the options of `on`, and how a value is read and
shown. What is possible now, only the daemon knows.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

import click

from vswapfs.ctl import client, expression, forms, instances
from vswapfs.ctl.options import RootCommand, split_name
from vswapfs.errors import UsageError
from vswapfs.format.message import SAME_FILLED
from vswapfs.format.settings import (
    LOG_LEVELS,
    POLLING_WINDOW_US,
    RECOMPRESS_LEVEL,
    WRITEBACK_START_PCT,
    WRITEBACK_STOP_PCT,
    AskSet,
    Changed,
    Number,
    Value,
)
from vswapfs.units import format_size


class _Setting(NamedTuple):
    field: str
    form: str
    example: str
    help: str
    parse: Callable[[str], Value]
    show: Callable[[Value], str]


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise UsageError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return parse


def _yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise UsageError(f"{text!r} is neither yes nor no")
    return text == "yes"


def _number(limits: Number) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,9}", text) and limits.allows(int(text)):
            return int(text)
        raise UsageError(f"{text!r} is not {limits.rule}")

    return parse


def _budget(text: str) -> int | None:
    return None if text == "none" else forms.parse_budget_bytes(text)


def _show_size(value: Value) -> str:
    return format_size(value) if isinstance(value, int) else str(value)


def _show_budget(value: Value) -> str:
    return "none" if value is None else f"{_show_size(value)}/day"


_SETTINGS: Final = {
    "pool-limit": _Setting(
        "pool_limit_bytes", "SIZE or auto", "512M",
        "At most what it was at the start. If more is used, pages go to the tiers; without one, "
        "stores are refused until enough was freed.",
        expression.parse_limit, _show_size,
    ),
    "same-filled": _Setting(
        "same_filled", " or ".join(SAME_FILLED), "same",
        "For pages that are stored from now on.",
        _one_of(SAME_FILLED), str,
    ),
    "recompress": _Setting(
        "recompress", "yes or no", "yes", "From the next idle second on.",
        _yes, lambda value: "yes" if value else "no",
    ),
    "write-budget": _Setting(
        "write_budget_bytes_per_day", "SIZE/day or none", "20G/day",
        "What was written in the day of now counts.",
        _budget, _show_budget,
    ),
    "recompress-level": _Setting(
        "recompress_level", RECOMPRESS_LEVEL.span, "4",
        "Of LZ4 HC, for what is recompressed from now on.",
        _number(RECOMPRESS_LEVEL), str,
    ),
    "writeback-start": _Setting(
        "writeback_start_pct", f"{WRITEBACK_START_PCT.span}, percent of the pool limit", "90",
        "Above it segments are written to the tiers.",
        _number(WRITEBACK_START_PCT), str,
    ),
    "writeback-stop": _Setting(
        "writeback_stop_pct", f"{WRITEBACK_STOP_PCT.span}, percent of the pool limit", "80",
        "Where that ends: below writeback-start.",
        _number(WRITEBACK_STOP_PCT), str,
    ),
    "polling-window": _Setting(
        "polling_window_us", f"{POLLING_WINDOW_US.span}, microseconds", "200",
        "0: the daemon always sleeps until the next request.",
        _number(POLLING_WINDOW_US), str,
    ),
    "log-level": _Setting(
        "log_level", " or ".join(LOG_LEVELS), "info", "For what is logged from now on.",
        _one_of(LOG_LEVELS), str,
    ),
}  # fmt: skip


def _epilog() -> str:
    lines = (f"  {key + '=':<18}{each.form}. {each.help}" for key, each in _SETTINGS.items())
    return "Keys:\n\n" + "\n\n".join(lines)


@click.command("set", cls=RootCommand, epilog=_epilog())
@click.argument("words", nargs=-1, required=True, metavar="[NAME] KEY=VALUE")
def set_command(words: tuple[str, ...]) -> None:
    """Change a setting while the instance is up, and print its old and new value.

    The keys are options of vswapctl on. It holds until the instance is taken down: a worker that
    takes over, after a crash or a restart, goes on with it.

    \b
    Example:
      vswapctl set vswap0 pool-limit=512M
    """
    name, word = split_name(words, "one KEY=VALUE")
    key, equals, text = word.partition("=")
    setting = _SETTINGS.get(key)
    if not equals:
        raise UsageError(
            f"{word!r} is not a setting: it has to be KEY=VALUE",
            remedy="for example pool-limit=512M; vswapctl set --help has all keys",
        )
    if setting is None:
        raise UsageError(
            f"{key!r} cannot be set while an instance is up",
            remedy=f"a KEY is one of {', '.join(_SETTINGS)}",
        )
    try:
        value = setting.parse(text)
    except UsageError as error:
        raise UsageError(
            f"{key}: {error.message}",
            remedy=f"{key}= takes {setting.form}; for example {key}={setting.example}",
        ) from None
    name = instances.choose(name)
    changed = client.ask(name, AskSet(setting.field, value), Changed)
    click.echo(f"{name}: {key} was {setting.show(changed.old)}, is {setting.show(changed.new)}")
