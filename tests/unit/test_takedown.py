"""off --force where a process of the instance cannot be ended."""

import signal
import subprocess

import pytest

from vswapfs.daemon import lock, remains, takedown
from vswapfs.daemon.remains import Remains
from vswapfs.errors import HostError
from vswapfs.fuse import mount


def test_who_waits_for_a_page_is_freed_though_a_process_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aborted: list[int] = []
    monkeypatch.setattr(takedown, "_KILL_WAIT_S", 0.05)
    monkeypatch.setattr(remains, "find", lambda _name: Remains("/m", 7, "/m/swap", []))
    monkeypatch.setattr(mount, "abort", aborted.append)
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)  # it hangs in the kernel
    with subprocess.Popen(["/bin/sleep", "60"]) as hangs:
        monkeypatch.setattr(lock, "holder", lambda _name: hangs.pid)
        monkeypatch.setattr(lock, "processes", lambda _name: [hangs.pid])
        with pytest.raises(HostError, match="does not end"):
            takedown.take_down_dead("tforce", lambda _text: None, force=True)
        assert aborted == [7]
        hangs.kill()
