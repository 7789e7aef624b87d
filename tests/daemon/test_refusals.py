"""What is refused, with which words and exit code, and that nothing is left afterwards."""

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from machine import (
    VSWAPCTL,
    assert_nothing_left,
    ctl,
    ctl_ok,
    mounted_instance,
    require_swap,
    run,
    swap_instance,
)

from vswapfs.format import instance, message
from vswapfs.host import memory

VSWAPFS = str(VSWAPCTL.with_name("vswapfs"))

# A mount namespace whose /dev lacks some nodes; what is mounted in it vanishes with it.
HIDE = """
set -e
dev=$(mktemp -d); mount -t tmpfs none "$dev"
for node in /dev/*; do case "$node" in {hidden}) ;; *) cp -a "$node" "$dev"/ ;; esac; done
mount --move "$dev" /dev; rmdir "$dev"
exec "$@"
"""


def without(hidden: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return run("unshare", "--mount", "sh", "-c", HIDE.format(hidden=hidden), "sh", *argv)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("--size", "lots"), 2, ("'lots' is not a size", "2G")),
        (("--size", "-1G"), 2, ("is not a size",)),
        (("--size", "4K"), 2, ("4096 is too small", "at least 1.0M")),
        (("--size", "0"), 2, ("too small",)),
        (("--size", "2000001"), 2, ("multiple of the page size", "--size 1998848")),
        (("--size", "16T"), 2, ("too large", "several instances")),
        (("--size", "64M", "--pool-limit", "1M"), 2, ("1048576 bytes is too small", "5.0M")),
        (("--size", "64M", "--pool-limit", "512T"), 2, ("too large: this machine has", "or less")),
        (("--size", "64M", "--same-filled", "some"), 2, ("some", "zero", "same", "off")),
        (("--size", "64M", "--priority", "high"), 2, ("high",)),
        ((), 2, ("--size",)),
    ],
)
def test_bad_options(arguments: tuple[str, ...], exit_code: int, words: tuple[str, ...]) -> None:
    require_swap()
    result = ctl("on", "tbad", *arguments)
    assert result.returncode == exit_code, result.stderr
    for word in words:
        assert word in result.stderr
    assert result.stdout == ""
    assert_nothing_left("tbad")


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a" * 33, "å"])
def test_bad_names(name: str) -> None:
    require_swap()
    result = ctl("on", "--size", "64M", "--", name)
    assert result.returncode == 2
    assert "is not a name" in result.stderr


def test_limit_larger_than_memory_leaves_the_machine_its_reserve() -> None:
    require_swap()
    result = ctl("on", "tbad", "--size", "64M", "--pool-limit", str(memory.total_bytes()))
    assert result.returncode == 2
    assert "an eighth" in result.stderr
    assert f"a pool limit of {memory.largest_pool_bytes() >> 20}M or less" in result.stderr
    assert_nothing_left("tbad")


def test_not_root() -> None:
    require_swap()
    # In a user namespace without a mapping we are nobody, and still may read our own files.
    for command in (["status"], ["on", "tbad", "--size", "64M"], ["off"], ["stats"]):
        result = run("unshare", "--user", VSWAPCTL, *command)
        assert result.returncode == 5, result.stderr
        assert "root" in result.stderr
    result = run("unshare", "--user", VSWAPFS, "/mnt", "--size", "64M")
    assert result.returncode == 5
    assert run("unshare", "--user", VSWAPCTL, "--version").returncode == 0


def test_no_dev_fuse() -> None:
    require_swap()
    result = without("/dev/fuse", str(VSWAPCTL), "on", "tbad", "--size", "64M")
    assert result.returncode == 3, result.stderr
    assert "/dev/fuse" in result.stderr
    assert "modprobe fuse" in result.stderr
    assert_nothing_left("tbad")


def test_no_free_loop_device(tmp_path: Path) -> None:
    require_swap()
    (tmp_path / "there").touch()
    tiers = [word for name in ("new", "there") for word in ("--tier", f"{tmp_path}/{name}:32M")]
    result = without("/dev/loop*", str(VSWAPCTL), "on", "tbad", "--size", "64M", *tiers)
    assert result.returncode == 3, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert "attach a loop device" in result.stderr
    assert "modprobe loop" in result.stderr
    assert_nothing_left("tbad")


def test_name_in_use() -> None:
    with swap_instance("tname", "--size", "64M"):
        result = ctl("on", "tname", "--size", "64M")
        assert result.returncode == 4
        assert "in use by process" in result.stderr
        assert "vswapctl off tname" in result.stderr
        assert "running" in ctl_ok("status", "tname")


def test_mount_point_in_use_or_missing(tmp_path: Path) -> None:
    with mounted_instance("tmount", tmp_path, "--size", "64M"):
        result = run(VSWAPFS, tmp_path, "--name", "tother", "--size", "64M")
        assert result.returncode == 2
        assert "something is mounted there already" in result.stderr
    for path in (tmp_path / "none", Path(__file__)):
        result = run(VSWAPFS, path, "--name", "tother", "--size", "64M")
        assert result.returncode == 2
        assert "is not a directory" in result.stderr
    assert_nothing_left("tother")


def test_unknown_instance_and_range() -> None:
    with swap_instance("tknown", "--size", "64M"):
        result = ctl("stats", "tunknown")
        assert result.returncode == 4
        assert "tknown" in result.stderr
        for text in ("64M", "0x1000-0x1000", "2M-1M", "64M-65M"):
            result = ctl("desc", "tknown", text)
            assert result.returncode == 2, (text, result.stderr)
        assert "0x4000000" in ctl("desc", "tknown", "1G").stderr


def test_off_while_a_file_is_open_can_be_tried_again() -> None:
    with swap_instance("topen", "--size", "64M") as up:
        with Path(up.file).open("rb") as file:
            result = ctl("off", "topen")
            assert result.returncode == 3
            assert "fuser -vm" in result.stderr
            assert file.read(4096)[-10:] == b"SWAPSPACE2"
        assert "running" in ctl_ok("status", "topen")


def test_only_root_may_use_the_control_socket() -> None:
    with swap_instance("tpeer", "--size", "64M"):
        path = Path(instance.control_path("tpeer"))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        # Even if someone opens the way to it, the daemon looks who is asking.
        run_mode = stat.S_IMODE(path.parent.parent.stat().st_mode)
        path.parent.parent.chmod(0o711)
        path.parent.chmod(0o711)
        path.chmod(0o666)
        code = (
            "import os, socket, sys; os.setgid(65534); os.setuid(65534);"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            "print(s.recv(9999).decode())"
        )
        python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
        result = run(python, "-c", code, path)
        path.parent.parent.chmod(run_mode)
        assert result.returncode == 0, result.stderr
        failure = message.decode_answer(result.stdout.strip().encode())
        assert isinstance(failure, message.Failure)
        assert failure.exit_code == 5


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b"not json\n", b'{"type":"none"}\n', b'{"type":"desc"}\n', b"\xff\xfe\n",
     b'{"type":"desc","start_bytes":"x","end_bytes":1}\n', b"x" * (2 << 20) + b"\n", b""],
)  # fmt: skip
def test_nonsense_on_the_control_socket(line: bytes) -> None:
    with swap_instance("tsense", "--size", "64M") as up:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(instance.control_path("tsense"))
            client.settimeout(20)
            try:
                client.sendall(line)
                client.shutdown(socket.SHUT_WR)
                answer = client.recv(1 << 16)
            except (BrokenPipeError, ConnectionResetError):
                answer = b""
        if answer:
            failure = message.decode_answer(answer)
            assert isinstance(failure, message.Failure)
            assert failure.exit_code == 2
        up.assert_healthy()


def test_interrupting_on_leaves_nothing() -> None:
    require_swap()
    for delay_s in (0.05, 0.2, 0.35, 0.5):
        with subprocess.Popen(
            [str(VSWAPCTL), "on", "tint", "--size", "64M"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as command:  # fmt: skip
            try:
                printed, _ = command.communicate(timeout=delay_s)
            except subprocess.TimeoutExpired:
                os.kill(command.pid, signal.SIGINT)
                printed, _ = command.communicate(timeout=30)
        if printed:  # the device: it was quicker than the signal
            ctl_ok("off", "tint")
        assert_nothing_left("tint")


def test_encryption_without_the_library(tmp_path: Path) -> None:
    """Another cryptography is in the way, which cannot be imported."""
    require_swap()
    (tmp_path / "cryptography").mkdir()
    (tmp_path / "cryptography" / "__init__.py").write_text("raise ImportError('no such library')")
    result = subprocess.run(
        [VSWAPCTL, "on", "tbad", "--size", "64M", "--encrypt"],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 3
    assert "no such library" in result.stderr
    assert "pip install" in result.stderr
    assert_nothing_left("tbad")


def test_encryption_without_locked_memory() -> None:
    """The key must not be swapped out; not even --allow-unlocked makes up for that."""
    require_swap()
    result = run(
        "setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock",
        "prlimit", "--memlock=65536", "--",
        VSWAPCTL, "on", "tbad", "--size", "64M", "--encrypt", "--allow-unlocked",
    )  # fmt: skip
    assert result.returncode == 3
    assert "the key of --encrypt" in result.stderr
    assert_nothing_left("tbad")
