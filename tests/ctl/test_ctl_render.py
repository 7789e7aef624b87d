"""Tables on a terminal and elsewhere; spans of time."""

import io
import subprocess
import sys

import pytest

from vswapfs.ctl.render import Heading, format_span, print_table

HEADINGS = [Heading("NAME"), Heading("SIZE", right=True)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEADINGS, [("a", "1.0G"), ("long", "1B")])
    assert capsys.readouterr().out == "NAME SIZE\na    1.0G\nlong   1B\n"


def test_nothing_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEADINGS, [], show_headings=False)
    assert capsys.readouterr().out == ""


def test_a_narrow_terminal_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    print_table(HEADINGS, [("x" * 40, "[bold]1.0G"), ("y", "1B")])
    shown = terminal.getvalue()
    assert "x" * 40 in shown
    assert "[bold]1.0G" in shown
    assert len(shown.splitlines()) == 3


def test_rich_is_imported_for_terminals_only() -> None:
    code = "import sys, vswapfs.ctl.cli; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0s"),
        (59, "59s"),
        (125, "2m05s"),
        (3600, "1h00m"),
        (86399, "23h59m"),
        (90000, "1d1h"),
    ],
)
def test_span(seconds: float, text: str) -> None:
    assert format_span(seconds) == text
