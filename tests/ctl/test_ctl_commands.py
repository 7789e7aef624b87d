"""vswapctl against a daemon that answers: output, JSON, exit codes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ctl.conftest import Vswapctl
from ctl.fake_daemon import DESCRIPTORS, TIERS, FakeDaemon, make_status

from vswapfs import __version__
from vswapfs.core import stats
from vswapfs.ctl import client, status
from vswapfs.format import instance
from vswapfs.format.message import (
    AskCheck,
    AskDescriptors,
    AskStatus,
    Descriptors,
    Done,
    Failure,
    Findings,
)

RECORDING = Path(__file__).with_name("workload.rec")


def make_dead(name: str) -> None:
    Path(instance.directory(name)).mkdir(parents=True)
    Path(instance.lock_path(name)).write_text("123")


# -- status -----------------------------------------------------------------------------------


def test_status_is_one_aligned_line_an_instance(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0"), FakeDaemon("b"):
        result = vswapctl("status")
    heading, *rows = result.stdout.splitlines()
    assert heading.split() == [c.name for c in status.COLUMNS if c.default]
    assert " ".join(rows[1].split()) == (
        "vswap0 running 2.0G 1.0G /dev/loop3 100 1.0M 2.0M 1.0G 0B 3.46 700M 300M 1.0G 1h02m"
    )
    assert rows[0].index("/dev/") == rows[1].index("/dev/") == heading.index("DEVICE")
    assert "warning: vswap0: io_flusher: EPERM\n" in result.stderr
    assert "mlockall" not in result.stderr
    assert result.exit_code == 0


def test_status_json_has_all_fields_and_the_state(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0"):
        make_dead("gone")
        result = vswapctl("status", "--json")
    dead, running = json.loads(result.stdout)
    assert (dead["name"], dead["state"]) == ("gone", "dead")
    assert running["state"] == "running"
    assert set(running) == {"state", *make_status("x").__struct_fields__}
    assert running["hardening"][1] == {"name": "io_flusher", "ok": False, "detail": "EPERM"}
    assert result.exit_code == 4


def test_status_columns_bytes_and_no_headings(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0"):
        result = vswapctl("status", "vswap0", "-nbo", "name,size,pool,ratio,uptime")
    assert result.stdout == "vswap0 2147483648 1070596096 3.46 1h02m\n"


def test_status_of_what_does_not_apply_is_a_dash(vswapctl: Vswapctl) -> None:
    bare = make_status("a", loop_device=None, swap_priority=None, ratio=None, hardening=[])
    with FakeDaemon("a", {AskStatus: [bare]}):
        result = vswapctl("status", "-n", "-o", "DEVICE,PRIO,RATIO,PID")
    assert (result.stdout, result.stderr) == ("- - - 42\n", "")


def test_status_warns_of_a_failing_tier(vswapctl: Vswapctl) -> None:
    with FakeDaemon("a", {AskStatus: [make_status("a", hardening=[], tiers=TIERS)]}):
        result = vswapctl("status")
    assert result.stderr == "warning: a: tier /t: EIO; tried again in 8 s\n"


def test_status_warns_of_a_pool_that_was_full(vswapctl: Vswapctl) -> None:
    full = make_status("a", hardening=[], refused_writes=7)
    with FakeDaemon("a", {AskStatus: [full]}):
        result = vswapctl("status")
    assert "warning: a: 7 writes refused since its worker began: the pool was full" in result.stderr
    assert "try: vswapctl set a pool-limit=SIZE, or vswapctl tier add a PATH:SIZE" in result.stderr


def test_unknown_column_names_all(vswapctl: Vswapctl) -> None:
    result = vswapctl("status", "-o", "NAME,SIZES")
    assert result.exit_code == 2
    assert "no such column: SIZES" in result.stderr
    assert "POOL-LIMIT" in result.stderr


def test_no_instance_is_no_error(vswapctl: Vswapctl) -> None:
    plain, as_json = vswapctl("status"), vswapctl("status", "--json")
    assert (plain.exit_code, plain.stdout, plain.stderr) == (0, "", "no instance is up\n")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (0, [])


def test_dead_instance_is_shown_with_its_remedy(vswapctl: Vswapctl) -> None:
    make_dead("vswap0")
    result = vswapctl("status")
    assert result.stdout.splitlines()[1].split()[:3] == ["vswap0", "dead", "-"]
    assert "try: vswapctl off vswap0\n" in result.stderr
    assert result.exit_code == 4


def test_help_lists_every_column(vswapctl: Vswapctl) -> None:
    text = vswapctl("status", "--help").stdout
    assert all(f"{c.name:<12} {c.help}\n" in text for c in status.COLUMNS)


# -- stats, check -----------------------------------------------------------------------------


def test_stats_shows_every_field_with_unit_and_meaning(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0"):
        result = vswapctl("stats")
    lines = result.stdout.splitlines()[1:]
    assert len(lines) == len(stats.FIELDS)
    for number, (line, field) in enumerate(zip(lines, stats.FIELDS, strict=True)):
        assert line.split(maxsplit=3) == [field.key, str(number), field.unit.value, field.help]


def test_stats_json_nests(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0"):
        result = vswapctl("stats", "vswap0", "--json")
    number = [field.key for field in stats.FIELDS].index("pages.zero")
    assert json.loads(result.stdout)["pages"]["zero"] == number


def test_check(vswapctl: Vswapctl) -> None:
    with (
        FakeDaemon("good"),
        FakeDaemon("bad", {AskCheck: [Findings(["one"]), Findings(["two"]), Done()]}),
    ):
        good, bad = vswapctl("check", "good"), vswapctl("check", "bad")
    assert (good.stdout, good.exit_code) == ("all invariants hold\n", 0)
    assert (bad.stdout, bad.exit_code) == ("one\ntwo\n", 1)


# -- desc -------------------------------------------------------------------------------------


def test_desc_table(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0"):
        result = vswapctl("desc", "0-16K")
    lines = result.stdout.splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "OFFSET STATE FILL SEGMENT PLACE STORED RATIO CODEC CHECKSUM VERIFIED TIER",
        "0x0 zero 0x0 - - - - - - - -",
        "0x1000 pool - 7 160 1024 4.00 lz4 1122334455667788 yes -",
        "0x2000 pool - 7 1184 - - - - no: checksum -",
        "0x3000 empty - - - - - - - - -",
        "0x4000 disk - 8 64 - - - - yes /t+0x100040",
    ]
    assert lines[2].index("yes") == lines[3].index("no:") == lines[0].index("VERIFIED")


def test_desc_json_is_what_msgspec_makes_of_it(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0"):
        found = json.loads(vswapctl("desc", "vswap0", "0-16K", "--json").stdout)
    assert len(found) == len(DESCRIPTORS)
    assert found[0] == {"offset": 0, "state": "zero", "fill": "0x0"}


@pytest.mark.parametrize(
    ("words", "start_bytes", "end_bytes", "state"),
    [
        (["8192"], 8192, 8193, None),
        (["0x2000-0x3000"], 0x2000, 0x3000, None),
        (["vswap0", "4K-1M", "--state", "disk"], 4096, 1 << 20, "disk"),
    ],
)
def test_desc_asks_for(
    vswapctl: Vswapctl, words: list[str], start_bytes: int, end_bytes: int, state: str | None
) -> None:
    with FakeDaemon("vswap0") as daemon:
        assert vswapctl("desc", *words).exit_code == 0
    assert daemon.requests == [AskDescriptors(start_bytes, end_bytes, state)]


@pytest.mark.parametrize("word", ["x", "1-x", "4K-4K", "2M-1M", "vswap0", "-", "1-2-3"])
def test_desc_refuses_what_is_no_range(vswapctl: Vswapctl, word: str) -> None:
    result = vswapctl("desc", word)
    assert result.exit_code == 2
    assert result.stderr.startswith("vswapctl: ")
    assert "\n  try: " in result.stderr


def test_desc_of_nothing(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0", {AskDescriptors: [Descriptors([]), Done()]}):
        plain, as_json = vswapctl("desc", "0"), vswapctl("desc", "0", "--json")
    assert len(plain.stdout.splitlines()) == 1
    assert json.loads(as_json.stdout) == []


def test_desc_that_fails_on_the_way_is_no_complete_list(vswapctl: Vswapctl) -> None:
    parts = [Descriptors(DESCRIPTORS), Failure("the daemon ends", "", 1)]
    with FakeDaemon("vswap0", {AskDescriptors: parts}):
        result = vswapctl("desc", "0-1M", "--json")
    assert result.exit_code == 1
    with pytest.raises(json.JSONDecodeError):
        json.loads(result.stdout)


def test_desc_prints_nothing_when_it_is_refused(vswapctl: Vswapctl) -> None:
    with FakeDaemon("vswap0", {AskDescriptors: [Failure("beyond the end", "below 1G", 2)]}):
        result = vswapctl("desc", "5G", "--json")
    assert (result.stdout, result.exit_code) == ("", 2)
    assert result.stderr == "vswapctl: beyond the end\n  try: below 1G\n"


def test_desc_with_too_many_words(vswapctl: Vswapctl) -> None:
    assert vswapctl("desc", "a", "b", "c").exit_code == 2


# -- for every command ------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["on", "off", "status", "stats", "desc", "check"])
def test_only_root(vswapctl: Vswapctl, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    result = vswapctl(command, "--no-such-option")
    assert result.exit_code == 5
    assert result.stderr.splitlines()[1] == f"  try: sudo vswapctl {command} --no-such-option"
    text = vswapctl(command, "--help")
    assert text.exit_code == 0
    assert "Example:" in text.stdout


def test_version(vswapctl: Vswapctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert vswapctl("--version").stdout == f"vswapctl {__version__}\n"


def test_bad_name_is_a_usage_error(vswapctl: Vswapctl) -> None:
    result = vswapctl("stats", "../etc")
    assert result.exit_code == 2
    assert "is not a name" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["status", "--help"], ["replay", str(RECORDING), "--json"]]
)
def test_nobody_reads(arguments: list[str]) -> None:
    command = "from vswapfs.ctl.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", command, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_ctrl_c_is_nothing_that_was_found(
    vswapctl: Vswapctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "ask", interrupt)
    assert vswapctl("check", "vswap0").exit_code == 128 + signal.SIGINT


def test_adopt_of_nobody_and_of_the_dead(vswapctl: Vswapctl) -> None:
    assert "no such instance: nobody" in vswapctl("adopt", "nobody").stderr
    make_dead("vswap0")
    assert "vswap0 is dead" in vswapctl("adopt", "vswap0").stderr


def test_hibernate_without_an_instance(vswapctl: Vswapctl) -> None:
    result = vswapctl("hibernate", "nobody", "--image", "/nowhere:1G")
    assert (result.exit_code, "no such instance: nobody" in result.stderr) == (4, True)
