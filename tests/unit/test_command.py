"""What is said of a command that does not end well (host/command.py)."""

import pytest

from vswapfs.errors import HostError
from vswapfs.host.command import run


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no room >&2; exit 1", "no room"),
        ("exit 3", "sh ended with 3"),
        # As the OOM killer does: it prefers swapoff, and not the least of swapped-out processes.
        ("kill -KILL $$", "sh was killed; if by the OOM killer, there is not enough memory"),
    ],
)
def test_what_is_said(script: str, said: str) -> None:
    with pytest.raises(HostError, match=said):
        run("step", "sh", "-c", script)
