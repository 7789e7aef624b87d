"""lost and scrub against a daemon that answers: output, JSON, errors, exit codes."""

import json
import re

import pytest
from ctl.conftest import Vswapctl
from ctl.fake_daemon import RATE, FakeDaemon

from vswapfs.format.message import (
    AskLost,
    AskScrub,
    Done,
    Lost,
    LostPage,
    Progress,
    Scrubbed,
    ScrubFinding,
    ScrubFindings,
)

LOST = [LostPage(0x2000, "checksum"), LostPage(0x123456000, "EIO on /t")]
FINDINGS = [
    ScrubFinding("/t", 0x5000, 0x2000, "checksum"),
    ScrubFinding("/dev/x", 0x100000, None, "no header"),
]


def test_lost(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0", {AskLost: [Lost(LOST[:1]), Lost(LOST[1:]), Done()]}):
        plain, as_json = vswapctl("lost"), vswapctl("lost", "vswap0", "--json")
    assert plain.stdout == ("     OFFSET REASON\n     0x2000 checksum\n0x123456000 EIO on /t\n")
    assert json.loads(as_json.stdout)[0] == {"offset": 0x2000, "reason": "checksum"}
    assert (plain.exit_code, as_json.exit_code) == (1, 1)


def test_no_page_is_lost(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0"):
        plain, as_json = vswapctl("lost"), vswapctl("lost", "--json")
    assert (plain.stdout, plain.exit_code) == ("no page is lost\n", 0)
    assert (json.loads(as_json.stdout), as_json.exit_code) == ([], 0)


def test_scrub(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0") as daemon:
        plain = vswapctl("scrub", "--rate", "50M")
        as_json = vswapctl("scrub", "vswap0", "--json")
    assert daemon.requests == [AskScrub(50 << 20), AskScrub()]
    assert re.fullmatch(rf"verified 300 records, 1\.0M at {RATE}: all are good\n", plain.stdout)
    assert json.loads(as_json.stdout) == {"records": 300, "scrubbed_bytes": 1 << 20, "findings": []}
    assert (plain.exit_code, as_json.exit_code) == (0, 0)


def test_scrub_that_finds(vswapctl: Vswapctl) -> None:
    found = [ScrubFindings(FINDINGS[:1]), ScrubFindings(FINDINGS[1:])]
    parts = [Progress(1 << 19, 1 << 20), *found, Scrubbed(300, 1 << 20)]
    with FakeDaemon("vswap0", {AskScrub: parts}):
        plain, as_json = vswapctl("scrub"), vswapctl("scrub", "--json")
    *table, verdict = (" ".join(line.split()) for line in plain.stdout.splitlines())
    assert table == [
        "TIER PLACE OFFSET REASON",
        "/t 0x5000 0x2000 checksum",
        "/dev/x 0x100000 - no header",
    ]
    assert re.fullmatch(rf"verified 300 records, 1\.0M at {RATE}: 2 bad", verdict)
    assert json.loads(as_json.stdout)["findings"][1]["page_offset"] is None
    assert (plain.exit_code, as_json.exit_code) == (1, 1)


@pytest.mark.parametrize("rate", ["0", "x"])
def test_scrub_refuses(vswapctl: Vswapctl, rate: str) -> None:
    result = vswapctl("scrub", "--rate", rate)
    assert result.exit_code == 2
    assert f"'--rate': '{rate}' is" in result.stderr
