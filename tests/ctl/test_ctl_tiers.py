"""tier, writeback and drain against a daemon that answers: output, JSON, errors, exit codes."""

import json
import re

import pytest
from ctl.conftest import Vswapctl
from ctl.fake_daemon import RATE, TIERS, FakeDaemon

from vswapfs.format.message import (
    AskDrain,
    AskTierAdd,
    AskTierRemove,
    AskTiers,
    AskWriteback,
    Done,
    Progress,
    TierConfig,
    Tiers,
)


def words(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


# -- tier list ------------------------------------------------------------------------------------


def test_tier_list(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0"):
        result = vswapctl("tier", "list")
    assert words(result.stdout) == [
        "PATH STATE SIZE USED LIVE WRITTEN READ TRIMMED ERRORS DETAIL",
        "/dev/x ok 32.0G 2.0G 1.0G 5.0G 3.0M 1.0M 0 -",
        "/t failing 1.0G 0B 0B 0B 0B 0B 3 EIO; tried again in 8 s",
        "write budget: 20.0G/day, 12.0G left",
    ]
    assert (result.stderr, result.exit_code) == ("", 0)


def test_tier_list_json(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0"):
        found = json.loads(vswapctl("tier", "list", "vswap0", "--json").stdout)
    assert set(found) == set(Tiers.__struct_fields__)
    assert (found["write_budget_bytes_per_day"], found["write_budget_left_bytes"]) == (
        20 << 30,
        12 << 30,
    )
    assert found["tiers"][1]["detail"] == TIERS[1].detail
    assert set(found["tiers"][0]) == set(TIERS[0].__struct_fields__)


def test_tier_list_without_budget_or_tiers(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0", {AskTiers: [Tiers(TIERS)]}) as daemon:
        assert "budget" not in vswapctl("tier", "list").stdout
        daemon.answers[AskTiers] = [Tiers([], 1 << 30)]
        bare = vswapctl("tier", "list")
        as_json = vswapctl("tier", "list", "--json")
    assert (bare.stdout, bare.stderr) == ("write budget: 1.0G/day\n", "vswap0 has no tier\n")
    assert json.loads(as_json.stdout)["tiers"] == []


# -- tier add, tier remove ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "tier"),
    [
        (["/dev/a:b:1G"], TierConfig("/dev/a:b", 1 << 30)),
        (["vswap0", "/t:1G", "--overwrite"], TierConfig("/t", 1 << 30, True)),
    ],
)
def test_tier_add(vswapctl: Vswapctl, arguments: list[str], tier: TierConfig) -> None:
    with FakeDaemon("vswap0") as daemon:
        result = vswapctl("tier", "add", *arguments)
    assert daemon.requests == [AskTierAdd(tier)]
    assert result.stdout == f"{tier.path} is a tier of vswap0, of 1.0G\n"
    assert (result.stderr, result.exit_code) == ("", 0)


@pytest.mark.parametrize("arguments", [["/t"], ["/t:x"], ["vswap0", "/t:0"], ["a", "b", "/t:1G"]])
def test_tier_add_refuses(vswapctl: Vswapctl, arguments: list[str]) -> None:
    with FakeDaemon("vswap0") as daemon:
        result = vswapctl("tier", "add", *arguments)
    assert (result.stdout, result.exit_code) == ("", 2)
    assert not daemon.requests


def test_tier_add_tells_the_form(vswapctl: Vswapctl) -> None:
    assert vswapctl("tier", "add", "/t").stderr == (
        "vswapctl: '/t' is not a tier: a tier is PATH:SIZE, what follows the last colon being "
        "the size\n  try: write for example /dev/sdb1:32G or /var/swap.tier:32G\n"
    )


@pytest.mark.parametrize("arguments", [["/t"], ["vswap0", "/t"]])
def test_tier_remove(vswapctl: Vswapctl, arguments: list[str]) -> None:
    with FakeDaemon("vswap0") as daemon:
        result = vswapctl("tier", "remove", *arguments)
    assert daemon.requests == [AskTierRemove("/t")]
    said = rf"/t is no tier of vswap0 any more: moved 1\.0G at {RATE}\n"
    assert re.fullmatch(said, result.stdout)
    assert (result.stderr, result.exit_code) == ("", 0)


def test_tier_remove_of_an_empty_one(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0", {AskTierRemove: [Done()]}):
        result = vswapctl("tier", "remove", "/t")
    assert result.stdout == "/t is no tier of vswap0 any more: nothing had to be moved\n"


@pytest.mark.parametrize("arguments", [[], [""], ["a", "b", "/t"]])
def test_tier_remove_refuses(vswapctl: Vswapctl, arguments: list[str]) -> None:
    assert vswapctl("tier", "remove", *arguments).exit_code == 2


# -- writeback, drain -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        ([], AskWriteback()),
        (["vswap0", "--all"], AskWriteback()),
        (["--idle", "5m"], AskWriteback(idle_s=300.0)),
        (["--incompressible"], AskWriteback(incompressible=True)),
        (["--bytes", "1.5G"], AskWriteback(max_bytes=3 << 29)),
    ],
)
def test_writeback(vswapctl: Vswapctl, arguments: list[str], request_: AskWriteback) -> None:
    with FakeDaemon("vswap0") as daemon:
        result = vswapctl("writeback", *arguments)
    assert daemon.requests == [request_]
    assert re.fullmatch(rf"wrote 1\.0G at {RATE}\n", result.stdout)
    assert (result.stderr, result.exit_code) == ("", 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--all", "--incompressible"], "--all and --incompressible exclude each other"),
        (["--idle", "0s", "--bytes", "1G"], "--idle and --bytes exclude each other"),
        (["--idle", "5"], "'--idle': '5' is not an age"),
        (["--bytes", "0"], "'--bytes': '0' is too small"),
        (["--bytes", "x"], "'--bytes': 'x' is not a size"),
    ],
)
def test_writeback_refuses(vswapctl: Vswapctl, arguments: list[str], said: str) -> None:
    with FakeDaemon("vswap0") as daemon:
        result = vswapctl("writeback", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not daemon.requests


def test_writeback_of_a_part_and_of_nothing(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0", {AskWriteback: [Progress(1 << 20, 1 << 30), Done()]}) as daemon:
        part = vswapctl("writeback")
        daemon.answers[AskWriteback] = [Progress(0, 0), Done()]
        nothing = vswapctl("writeback")
    assert re.fullmatch(rf"wrote 1\.0M of 1\.0G at {RATE}\n", part.stdout)
    assert nothing.stdout == "nothing to write\n"


def test_drain(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0") as daemon:
        result = vswapctl("drain", "vswap0")
        daemon.answers[AskDrain] = [Done()]
        nothing = vswapctl("drain")
    assert re.fullmatch(rf"read back 1\.0M at {RATE}\n", result.stdout)
    assert nothing.stdout == "nothing to read back\n"
    assert (result.exit_code, nothing.exit_code) == (0, 0)
