"""What holds for all tests: signals, where their files are, and what is told at the end.

The tests that failed are named last of all, so that a log that is cut at its front still has them:
in CI pytest cuts no difference short, and one of two MiB of pages hides all that came before.
"""

import os
import signal
from collections.abc import Generator

import pytest

# Who starts the tests in the background, or with nohup, ignores some, and every command that a test
# starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(_number, signal.SIG_DFL)

# Tiers are to be on a disk: since Debian 13 /tmp is in memory, of which a test takes up to 2 GiB.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/var/tmp")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> Generator[None, None, None]:
    yield
    for outcome in ("failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            terminalreporter.write_line(f"{outcome}: {report.nodeid}")
