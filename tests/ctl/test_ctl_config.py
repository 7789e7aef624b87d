"""on --config: a file is as good as the command line; and what is said of a wrong one."""

import os
import select
import socket
from pathlib import Path
from typing import Any

import pytest
from ctl.conftest import Vswapctl

from vswapfs.ctl import expression, launch, readiness
from vswapfs.errors import UsageError
from vswapfs.format import instance
from vswapfs.format.message import Config, Ready, TierConfig

GIB = 1 << 30


@pytest.fixture(autouse=True)
def ram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression, "ram_bytes", lambda: 16 * GIB)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    configs: list[Config] = []

    def start(config: Config, _show: Any) -> Ready:
        configs.append(config)
        return Ready(config.mountpoint, "/dev/loop9")

    monkeypatch.setattr(launch, "start", start)
    return configs


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "work.toml"
    path.write_text(text)
    return str(path)


def test_all_keys(vswapctl: Vswapctl, started: list[Config], tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        size = "min(ram / 2, 4G)"
        pool-limit = "auto"
        tier = ["/dev/x:32G", "/t:1G"]
        tier-overwrite = true
        write-budget = "20G/day"
        recompress = true
        same-filled = "zero"
        priority = 7
        allow-unlocked = true
        """,
    )
    result = vswapctl("on", "--config", path)
    assert (result.stdout, result.exit_code) == ("/dev/loop9\n", 0)
    assert started == [
        Config(
            name="work", mountpoint=instance.mountpoint("work"), size_bytes=4 * GIB, swap=True,
            same_filled="zero", pool_limit_bytes="auto", priority=7, allow_unlocked=True,
            tiers=[TierConfig("/dev/x", 32 * GIB, True), TierConfig("/t", GIB, True)],
            write_budget_bytes_per_day=20 * GIB, recompress=True,
        )
    ]  # fmt: skip


def test_the_command_line_counts_more(
    vswapctl: Vswapctl, started: list[Config], tmp_path: Path
) -> None:
    path = write(tmp_path, 'size = "1G"\npriority = 7\n')
    assert vswapctl("on", "--config", path, "other", "--size", "2G").exit_code == 0
    (config,) = started
    assert (config.name, config.size_bytes, config.priority) == ("other", 2 * GIB, 7)


def test_a_file_whose_name_is_no_instance_name_needs_one(
    vswapctl: Vswapctl, started: list[Config], tmp_path: Path
) -> None:
    path = tmp_path / "my.conf.toml"
    path.write_text('size = "1G"\n')
    result = vswapctl("on", "--config", str(path))
    assert result.exit_code == 2
    assert "'my.conf' is not a name" in result.stderr
    assert vswapctl("on", "--config", str(path), "other").exit_code == 0
    assert [config.name for config in started] == ["other"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("size = ", "is not TOML"),
        ('sise = "1G"', "'sise' is no option of vswapctl on"),
        ('size = ["1G"]', "size = ['1G']: it is a string or a whole number"),
        ('size = "2X"', "work.toml: '2X' is not a size"),
        ('size = "1G"\npriority = -1', "work.toml: -1 is not in the range"),
        ('size = "1G"\nsame-filled = "all"', "work.toml: 'all' is not one of"),
        ('size = "1G"\ntier = ["/t"]', "work.toml: '/t' is not a tier"),
        ('size = "1G"\nrecompress = "yes"', "recompress = 'yes': it is true or false"),
        ('size = "1G"\ntier = "/t:1G"', "tier = '/t:1G': it is a list of strings"),
        ('size = "ram +"', "'ram +' is not a size: it ends too early"),
        ("", "Missing option '--size'"),
        (f"size = {'[' * 3000}", "is not TOML: it is nested too deeply"),
        (f"size = {'9' * 5000}", "is not TOML: Exceeds the limit"),
        (f"size = 0x{'f' * 5000}", "size: a number has too many digits"),
        (f"tier = [0x{'f' * 5000}]", "tier: a number has too many digits"),
        (f'size = "{"(" * 3000}ram"', "is not a size: it is longer than"),
        ("#" * (1 << 20) + "\n", "has more than 1048576 bytes"),
    ],
    ids=lambda text: text[:30],
)
def test_wrong_files(
    vswapctl: Vswapctl, started: list[Config], tmp_path: Path, text: str, error: str
) -> None:
    result = vswapctl("on", "--config", write(tmp_path, text))
    assert error in result.stderr
    assert (result.exit_code, started) == (2, [])


def test_no_file(vswapctl: Vswapctl, tmp_path: Path) -> None:
    gone = vswapctl("on", "--config", str(tmp_path / "gone.toml"))
    assert gone.exit_code == 2
    assert "gone.toml cannot be read: No such file" in gone.stderr


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("2G", 2 * GIB),
        ("65536", 65536),
        ("ram", 16 * GIB),
        ("RAM/2", 8 * GIB),
        ("min(ram / 2, 4G)", 4 * GIB),
        ("max(min(ram, 1G), 512M, ram - 15.5G)", GIB),
        ("(ram - 2G) * 0.5", 7 * GIB),
        ("ram / 3", 5461 << 20),  # whole MiB, downwards
        ("2 * 1GiB + 1M", (2 << 30) + (1 << 20)),
    ],
)
def test_expressions(text: str, size_bytes: int) -> None:
    assert expression.parse_size_or_expression(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("ram / 0", "it divides by 0"),
        ("ram ram", "'ram' is too much"),
        ("min(ram, 4G", "')' is missing"),
        ("min ram", "'(' is missing"),
        ("ram * 4X", "'4x' is neither a number nor a size"),
        ("ram / 1.2.3", "'1.2.3' is neither"),
        ("ram; 4", "';' is not understood"),
        ("* ram", "'*' is not where it can be"),
        ("1G - ram", "at least 1M is needed"),
        ("__import__('os')", "is not understood"),
        ("(" * 2000 + "ram", "is longer than"),
        ("0-" + "9" * 400, "is longer than"),
        ("9*" * 30000 + "9", "is longer than"),
        ("1G-" * 66 + "9", "at least 1M is needed"),
        ("0 - " + "9" * 190, "2^63 bytes or more"),
        ("ram*" * 40 + "ram", "2^63 bytes or more"),
        ("2 - " + "ram*" * 40 + "ram", "2^63 bytes or more"),
        ("(" * 199 + ")", "is not where it can be"),
    ],
    ids=lambda text: text[:30],
)
def test_wrong_expressions(text: str, error: str) -> None:
    with pytest.raises(UsageError) as caught:
        expression.parse_size_or_expression(text)
    assert error in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(
    monkeypatch: pytest.MonkeyPatch, run_directory: Path, abstract: bool
) -> None:
    Path(instance.directory("work")).mkdir(parents=True)
    Path(instance.lock_path("work")).write_text("4711")
    address = f"@vswapfs-test-{os.getpid()}" if abstract else str(run_directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if abstract else address)
        monkeypatch.setattr(readiness, "_BARRIER_TIMEOUT_MS", 50)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        readiness.tell("work")
        assert manager.recv(4096) == b"MAINPID=4711\nREADY=1\nSTATUS=work is up"
        data, (barrier,), _flags, _address = socket.recv_fds(manager, 4096, 4)
        assert data == b"BARRIER=1"
        assert select.select([], [barrier], [], 0)[1], "it is the end that writes"
        os.close(barrier)


def test_nobody_is_told_who_did_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    readiness.tell("work")
