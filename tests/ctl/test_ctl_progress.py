"""What commands that take long show meanwhile, and what all commands about tiers have in common.

The latter is how they tell silence, a failure, another version, no instance, and who is not root.
"""

import io
import sys
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ctl.conftest import Vswapctl
from ctl.fake_daemon import FakeDaemon, Part

from vswapfs.ctl import client, progress
from vswapfs.errors import HostError
from vswapfs.format.message import (
    AskDrain,
    AskLost,
    AskScrub,
    AskTierAdd,
    AskTierRemove,
    AskTiers,
    AskWriteback,
    Done,
    Failure,
    Progress,
    Ready,
    TierConfig,
)

# Each command that is followed while it runs, and its request.
LONG = [
    (("tier", "add", "vswap0", "/t:1G"), AskTierAdd),
    (("tier", "remove", "vswap0", "/t"), AskTierRemove),
    (("writeback",), AskWriteback),
    (("drain",), AskDrain),
    (("scrub",), AskScrub),
]
ALL = [*LONG, (("tier", "list"), AskTiers), (("lost",), AskLost)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_it_is_a_line_now_and_then(
    vswapctl: Vswapctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now_s))
    original: Any = client.ask

    def ask(*arguments: Any) -> Any:
        *rest, show = arguments

        def show_later(answer: Progress) -> None:
            nonlocal now_s
            now_s += 2.0
            show(answer)

        return original(*rest, show_later)

    monkeypatch.setattr(client, "ask", ask)
    parts = [*(Progress(step << 20, 8 << 20) for step in range(1, 9)), Done()]
    with FakeDaemon("vswap0", {AskWriteback: parts}):
        result = vswapctl("writeback")
    assert result.stderr == ("writing: 3.0M of 8.0M, 512K/s\nwriting: 6.0M of 8.0M, 512K/s\n")
    assert result.stdout == "wrote 8.0M at 512K/s\n"


@pytest.mark.parametrize("last", [Done(), Failure("read: the tier is gone", "tier list", 3)])
def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, last: Done | Failure) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    before = threading.active_count()
    parts: Sequence[Part] = [Progress(1 << 20, 4 << 20), Progress(2 << 20, 4 << 20), last]
    with FakeDaemon("vswap0", {AskDrain: parts}):
        if isinstance(last, Failure):
            with pytest.raises(HostError, match="the tier is gone"):
                progress.follow("vswap0", AskDrain(), Done, "off [bold]/t")
        else:
            _, reached = progress.follow("vswap0", AskDrain(), Done, "off [bold]/t")
            assert (reached.done_bytes, reached.total_bytes) == (2 << 20, 4 << 20)
    shown = terminal.getvalue()
    assert "off [bold]/t" in shown
    assert "2.0M of 4.0M, " in shown
    assert "50%" in shown
    deadline_s = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline_s:
        time.sleep(0.01)  # the daemon's side may still be closing
    assert threading.active_count() == before


def test_bar_before_the_first_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with FakeDaemon("vswap0", {AskDrain: [Progress(0, 0), Done()]}):
        progress.follow("vswap0", AskTierAdd(TierConfig("/t", 1)), Done, "adding /t")
        progress.follow("vswap0", AskDrain(), Done, "reading back")
    assert "adding /t" in terminal.getvalue()


# -- for every command ----------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "kind"), LONG)
def test_silence_is_no_reason_to_force_it_down(
    vswapctl: Vswapctl, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], kind: type
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE_S", 0.1)
    hang = threading.Event()
    with FakeDaemon("vswap0", {kind: [Progress(1, 2), hang.wait]}):
        result = vswapctl(*arguments)
        hang.set()
    assert result.exit_code == 4
    assert result.stderr == (
        "vswapctl: vswap0 does not answer: nothing came for 0.1 s; it may still be at it\n"
        "  try: vswapctl tier list vswap0\n"
    )


@pytest.mark.parametrize(("arguments", "kind"), ALL)
def test_failure_of_the_daemon(vswapctl: Vswapctl, arguments: tuple[str, ...], kind: type) -> None:
    with FakeDaemon("vswap0", {kind: [Progress(1, 2), Failure("no room", "add a tier", 1)]}):
        result = vswapctl(*arguments)
    assert (result.stdout, result.exit_code) == ("", 1)
    assert result.stderr == "vswapctl: no room\n  try: add a tier\n"


@pytest.mark.parametrize(("arguments", "kind"), ALL)
def test_answer_of_another_kind(vswapctl: Vswapctl, arguments: tuple[str, ...], kind: type) -> None:
    with FakeDaemon("vswap0", {kind: [Ready("/mnt", None)]}):
        result = vswapctl(*arguments)
    assert result.exit_code == 4
    assert "does not understand" in result.stderr


@pytest.mark.parametrize(("arguments", "kind"), ALL)
def test_no_instance(vswapctl: Vswapctl, arguments: tuple[str, ...], kind: type) -> None:
    assert vswapctl(*arguments).exit_code == 4


@pytest.mark.parametrize(("arguments", "kind"), ALL)
def test_only_root(
    vswapctl: Vswapctl,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    kind: type,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    result = vswapctl(*arguments)
    assert result.exit_code == 5
    assert result.stderr.splitlines()[1] == f"  try: sudo vswapctl {' '.join(arguments)}"
    text = vswapctl(*arguments, "--help")
    assert text.exit_code == 0
    assert "Example:" in text.stdout
