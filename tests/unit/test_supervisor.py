"""The supervisor's decisions, with processes that only sleep: who is ended, kept, told, let go."""

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vswapfs.daemon import lock, supervisor
from vswapfs.daemon.handover import Handed
from vswapfs.daemon.supervisor import DEATHS_MAX, Supervisor
from vswapfs.errors import HostError
from vswapfs.format import instance
from vswapfs.format.session import SESSION_BYTES, Field, Refusal, Session

NAME = "tsup"


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Handed]:
    monkeypatch.setattr(instance, "RUN_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(supervisor, "command_line", lambda *_: ["/bin/sleep", "600"])
    state = os.memfd_create("session")
    os.ftruncate(state, SESSION_BYTES)
    made = Handed(*[-1] * len(Handed._fields))._replace(
        session=state, bell=os.eventfd(0, os.EFD_NONBLOCK), lock=lock.acquire(NAME)
    )
    session = made.open_session()
    session.begin(b"{}")
    session[Field.SURVIVES] = session[Field.FOREGROUND] = 1
    yield made
    os.close(made.session)
    os.close(made.bell)


@pytest.fixture
def up(handed: Handed) -> Iterator[Supervisor]:
    """With a worker that is up, and a standby that is ready."""
    made = Supervisor(NAME, handed)
    made._has_let_go = True
    made._worker = made._start("worker")
    made._session[Field.UP] = 1
    assert made._start_standby()
    get_ready(made)
    yield made
    made._leave_all()
    made._leave(made._worker)
    made._await_leaving()
    os.close(handed.lock)


def session(up: Supervisor) -> Session:
    return up._session


def get_ready(up: Supervisor) -> int:
    assert up._standby is not None
    session(up)[Field.STANDBY_READY] = up._standby.pid
    up._rung()
    return up._standby.pid


def ask_for_restart(up: Supervisor) -> None:
    session(up)[Field.RESTART] = 1
    up._rung()


def end_of_worker(up: Supervisor) -> int:
    """Waits for it, and has the next one take over."""
    assert select.select([up._worker.pidfd], [], [], 10)[0], "it was not killed"
    status = up._worker.ended()
    assert status is not None
    assert up._worker_ended(status) is None
    return status


def kill_worker(up: Supervisor) -> None:
    up._worker.kill()
    end_of_worker(up)


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_restarts_are_no_deaths(up: Supervisor) -> None:
    for _ in range(DEATHS_MAX + 2):
        ask_for_restart(up)
        get_ready(up)
        end_of_worker(up)
        assert up._start_standby()
        get_ready(up)
    kill_worker(up)
    assert up._deaths == 1


def test_a_refused_restart_leaves_the_standby_that_was_ready(up: Supervisor) -> None:
    worker, ready = up._worker.pid, session(up)[Field.STANDBY_PID]
    ask_for_restart(up)
    fresh = up._standby
    assert fresh is not None
    assert (fresh.pid != ready, lives(ready)) == (True, True)
    fresh.kill()
    assert select.select([fresh.pidfd], [], [], 10)[0]
    up._standby_ended()
    assert session(up)[Field.STANDBY_PID] == session(up)[Field.STANDBY_READY] == ready
    assert session(up)[Field.RESTART] == 0
    assert session(up)[Field.REFUSED] == Refusal.ENDED + signal.SIGKILL
    assert up._worker.pid == worker
    kill_worker(up)
    assert (up._worker.pid, lives(ready)) == (ready, True)


def test_the_one_that_is_ready_takes_over_while_a_fresh_one_starts(up: Supervisor) -> None:
    ready = session(up)[Field.STANDBY_PID]
    ask_for_restart(up)
    assert up._standby is not None
    fresh = up._standby.pid
    kill_worker(up)
    assert up._worker.pid == ready
    assert [each.pid for each in up._leaving.values()] == [fresh]


def test_only_the_fresh_one_is_let_go_by_a_restart(up: Supervisor) -> None:
    kill_worker(up)
    assert up._start_standby()
    worker, slow = up._worker, up._standby
    assert slow is not None
    ask_for_restart(up)
    session(up)[Field.STANDBY_READY] = slow.pid  # it has just got so far
    up._rung()
    assert not select.select([worker.pidfd], [], [], 0.1)[0]
    fresh = get_ready(up)
    assert end_of_worker(up) == -signal.SIGKILL
    assert up._worker.pid == fresh


def test_a_restart_that_was_given_up_is_asked_for_again(up: Supervisor) -> None:
    ready = session(up)[Field.STANDBY_PID]
    ask_for_restart(up)
    first = up._standby
    session(up)[Field.RESTART] = 0  # the worker did not wait any longer
    ask_for_restart(up)
    assert up._before is not None
    assert up._before.pid == ready
    assert first in up._leaving.values()
    assert up._standby not in (first, up._before)


@pytest.mark.parametrize("fails", ["posix_spawn", "pidfd_open"])
def test_a_start_for_which_there_is_no_process(
    handed: Handed, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    spawn, started = os.posix_spawn, [0]

    def start(*arguments: Any, **options: Any) -> int:
        started.append(spawn(*arguments, **options))
        return started[-1]

    def fail(*_: object, **__: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "posix_spawn", start)
    monkeypatch.setattr(os, fails, fail)
    assert Supervisor(NAME, handed).run() == HostError.exit_code
    assert len(started) == (2 if fails == "pidfd_open" else 1)
    assert not Path(f"/proc/{started[-1]}").exists()
    assert not Path(instance.directory(NAME)).exists()


def test_a_signal_reaches_a_successor_once_it_hears(up: Supervisor) -> None:
    kill_worker(up)
    up._ask_to_end()
    up._rung()
    assert not select.select([up._worker.pidfd], [], [], 0.1)[0]
    session(up)[Field.SERVING_NS] = session(up)[Field.GO_NS] + 1
    up._rung()
    assert select.select([up._worker.pidfd], [], [], 10)[0]
    assert up._worker.ended() == -signal.SIGTERM


def test_a_signal_that_died_with_the_worker_is_given_to_its_successor(up: Supervisor) -> None:
    up._worker.kill()
    assert select.select([up._worker.pidfd], [], [], 10)[0]
    up._ask_to_end()
    end_of_worker(up)
    session(up)[Field.SERVING_NS] = session(up)[Field.GO_NS] + 1
    up._rung()
    assert select.select([up._worker.pidfd], [], [], 10)[0]
    assert up._worker.ended() == -signal.SIGTERM


def test_a_standby_that_is_ready_after_all_takes_the_place_of_the_one_before(
    up: Supervisor,
) -> None:
    first = up._standby
    ask_for_restart(up)
    session(up)[Field.RESTART] = 0  # the worker did not wait any longer
    assert up._standby is not None
    session(up)[Field.STANDBY_READY] = up._standby.pid
    up._start_fresh()  # asked for again, before we have heard of that
    assert first in up._leaving.values()


def test_where_nobody_can_succeed_a_worker_that_dies_before_it_said_ready_is_the_end(
    up: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []

    def never_up(_why: str, status: int) -> int:
        ended.append(status)
        return 3

    monkeypatch.setattr(up, "_never_up", never_up)
    session(up)[Field.SURVIVES] = 0
    up._has_let_go = False
    end = up._worker_ended(-9)
    assert end is not None
    assert (end(), ended) == (3, [-9])
