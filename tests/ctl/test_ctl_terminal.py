"""A recording replayed in a real terminal: sizes, colours, and how it is left."""

import re
from pathlib import Path

from machine import VSWAPCTL
from terminal import Terminal, terminal

RECORDED = Path(__file__).with_name("workload.rec")
GREYS = {0, 7, 8, 15, *range(232, 256)}


def replay(opened: Terminal, before: str = "") -> None:
    opened.run(f"{before} {VSWAPCTL} replay {RECORDED}")
    opened.wait_for("end of the recording")


def test_sizes() -> None:
    with terminal(80, 24) as opened:
        replay(opened)
        lines = opened.lines()
        assert lines[0].startswith("eyes0  recording workload.rec")
        assert lines[22].startswith("warning: ")
        assert "q Quit" in lines[23]
        for columns, rows in ((40, 10), (10, 3), (132, 50)):
            opened.resize(columns, rows)
            opened.wait_for("Quit" if columns > 20 else "q")
        # A wider terminal has room for more samples and for the whole path.
        opened.wait_for("/var/tmp/eyes.tier")
        assert max(map(len, opened.lines())) > 120
        opened.press("q")
        opened.wait_for("ready>")


def test_without_colour() -> None:
    with terminal(80, 24) as opened:
        replay(opened, "NO_COLOR=1")
        codes = re.findall(r"\x1b\[([\d;]+)m", opened.text(with_colours=True))
        assert codes
        for code in codes:
            for colour in re.findall(r"[34]8;5;(\d+)", code):
                assert int(colour) in GREYS, code
            assert "8;2;" not in code
            assert not re.search(r"(?<!\d)(3[0-7]|4[0-7]|9[0-7]|10[0-7])(?!\d)", code), code
        legend = next(line for line in opened.lines() if "pool" in line and "disk" in line)
        assert len(set(re.findall(r"(\S) (?:pool|disk|same|zero|empty) ", legend))) == 5
        opened.press("q")
        opened.wait_for("ready>")


def test_a_signal_leaves_the_terminal_clean() -> None:
    for name in ("TERM", "HUP", "INT"):
        with terminal(80, 24) as opened:
            before = opened.modes()
            opened.run("stty -g | md5sum")
            (settings,) = re.findall(r"[0-9a-f]{32}", opened.wait_for("  -\n"))
            replay(opened, "clear;")
            assert opened.modes() != before
            opened.signal(name)
            opened.wait_for("ready>")
            assert opened.modes() == before
            opened.run("clear; stty -g | md5sum")
            opened.wait_for(settings)
