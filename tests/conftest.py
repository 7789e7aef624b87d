"""Names the tests that failed last of all: a log that is cut at its front still has them then.

In CI pytest cuts no difference short, and one of two MiB of pages hides all that came before.
"""

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> Generator[None, None, None]:
    yield
    for outcome in ("failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            terminalreporter.write_line(f"{outcome}: {report.nodeid}")
