"""A real terminal, in tmux, for commands that take the whole of one."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from machine import missing, wait_until


class Terminal:
    """A shell in a terminal of its own."""

    def __init__(self, socket: str, columns: int, rows: int) -> None:
        self._socket = socket
        self._tmux(
            "new-session", "-d", "-x", str(columns), "-y", str(rows),
            "env -u NO_COLOR PS1='ready> ' bash --norc --noprofile",
        )  # fmt: skip
        wait_until("a prompt", lambda: "ready>" in self.text())

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, "-f", "/dev/null", *words],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def text(self, *, with_colours: bool = False) -> str:
        """What is on it now."""
        return self._tmux("capture-pane", "-p", *(["-e"] if with_colours else []))

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.text().splitlines()]

    def run(self, command: str) -> None:
        """Type a command line."""
        self._tmux("send-keys", "-l", command)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def signal(self, name: str) -> None:
        """Send a signal to what runs in the foreground."""
        shell = self._tmux("display", "-p", "#{pane_pid}").strip()
        group = Path(f"/proc/{shell}/stat").read_text().rpartition(")")[2].split()[5]
        os.killpg(int(group), signal.Signals[f"SIG{name}"])

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def modes(self) -> dict[str, str]:
        """What programs change of a terminal, and must change back."""
        flags = ("alternate_on", "cursor_flag", "mouse_any_flag", "keypad_flag", "wrap_flag")
        words = self._tmux("display", "-p", " ".join(f"{flag}=#{{{flag}}}" for flag in flags))
        return dict(word.split("=") for word in words.split())

    def wait_for(self, wanted: str, timeout_s: float = 20.0) -> str:
        """Wait until it shows this; returns all that it shows then."""
        deadline = time.monotonic() + timeout_s
        while wanted not in (text := self.text()):
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {wanted!r} in\n{text}"
            time.sleep(0.05)
        return text

    def close(self) -> None:
        self._tmux("kill-server")


@contextlib.contextmanager
def terminal(columns: int, rows: int) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        missing("no tmux")
    with tempfile.TemporaryDirectory(prefix="vterm") as directory:
        opened = Terminal(f"{directory}/tmux", columns, rows)
        try:
            yield opened
        finally:
            opened.close()
