"""The supervisor: holds what must outlive a worker, and replaces the worker when it dies.

Owns the processes of an instance: one worker, which serves, and one standby, which is ready to.
Has the machine rescued when swap stands still (host/rescue.py).
Never serves, never touches a page, and holds no descriptor on the mount itself (the kernel would
have it wait for the dead device when it ends). Always holds: the standby is let go only after the
worker was reaped, for two workers would answer the same request; and on the way there the
supervisor allocates nothing, as memory may have to be freed by the very device that it revives:
its memory is locked, and a takeover is a wait, five words of the session and an eventfd.
"""

import contextlib
import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

from vswapfs.daemon.handover import Handed, command_line
from vswapfs.errors import HostError, VswapError
from vswapfs.format import instance
from vswapfs.format.session import WORDS_BYTES, Field, Refusal
from vswapfs.host import hardening
from vswapfs.host.rescue import Rescue

DEATHS_MAX: Final = 20
"""Workers in a row that die before their first answer. 20 cold starts take about 10 s."""

STEADY_NS: Final = 5_000_000_000
"""A worker that lived so long was not one of them, if nothing was asked of it."""

STANDBY_DELAY_MS: Final = 200
"""To start one takes processor time that the worker needs more, just after a takeover."""

STANDBY_RETRY_MS: Final = 10_000

LOOK_MS: Final = 1000
"""Between two looks at whether swap stands still."""

START_TRIES_MAX: Final = 100
START_RETRY_S: Final = 0.1
"""When a process is needed at once, and memory or process ids are short."""


class _Process:
    """A child, or an adopted process, by its pidfd."""

    def __init__(self, pid: int, pidfd: int, go: int = -1) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.go = go

    def ended(self) -> int | None:
        """Its exit status, or minus the signal; 0 if it was not our child. None: it lives.
        From then on it is reaped, and this must not be called again."""
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return 0 if select.select([self.pidfd], [], [], 0)[0] else None
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def kill(self, number: int = signal.SIGKILL) -> None:
        # ESRCH: it has ended. EBADF: it was reaped a moment ago.
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, number)

    def end(self) -> None:
        """Kill it, and wait until it is gone."""
        self.kill()
        select.select([self.pidfd], [], [])
        self.ended()
        self.close()

    def close(self) -> None:
        os.close(self.pidfd)
        if self.go >= 0:
            os.close(self.go)


class Supervisor:
    """``worker`` and its ``pidfd``: of one that is to be adopted."""

    def __init__(
        self, name: str, handed: Handed, worker: int | None = None, pidfd: int = -1
    ) -> None:
        self._name = name
        self._handed = handed
        self._session = handed.open_session(WORDS_BYTES)
        self._worker: _Process
        self._adopted = None if worker is None else _Process(worker, pidfd)
        self._standby: _Process | None = None
        self._before: _Process | None = None
        """The standby that is ready while a fresh one is started to take over in its place."""
        self._leaving: dict[int, _Process] = {}
        """Killed standbys that have not ended yet, by pidfd."""
        self._standby_at_ns = 0
        self._deaths = 0
        self._rescue: Rescue | None = None
        self._rescue_refused = False
        self._has_let_go = False
        self._asked_ns = 0
        """When we were asked, by a signal, to have the instance taken down."""
        self._hears = True
        """Whether the worker may be asked: a successor listens some time after its start."""
        self._ask_again = False
        """The worker that was asked is gone, or this one does not hear yet."""
        self._poll = select.poll()
        self._poll.register(handed.bell, select.POLLIN)
        self._session[Field.SUPERVISOR_PID] = os.getpid()

    # -- processes ---------------------------------------------------------------------------

    def _start(self, mode: str) -> _Process:
        go = os.eventfd(0, 0)
        os.set_inheritable(go, True)
        command = command_line(mode, self._name, self._handed._replace(go=go))
        try:
            # A group of its own: ctrl-C is for us, who pass it on.
            pid = os.posix_spawn(command[0], command, os.environ, setpgroup=0)
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
        except OSError:
            os.close(go)
            raise
        return self._watch(_Process(pid, pidfd, go))

    def _watch(self, process: _Process) -> _Process:
        self._poll.register(process.pidfd, select.POLLIN)
        return process

    def _forget(self, process: _Process) -> None:
        self._poll.unregister(process.pidfd)
        process.close()

    def _start_standby(self) -> bool:
        """False, and nothing has changed, if the machine cannot start a process now."""
        try:
            started = self._start("standby")
        except OSError as error:
            self._log(f"no standby could be started: {error}")
            return False
        self._standby = started
        self._session[Field.STANDBY_PID] = started.pid
        return True

    def _is_ready(self) -> bool:
        return self._standby is not None and self._session[Field.STANDBY_READY] == self._standby.pid

    def _leave(self, standby: _Process | None) -> None:
        """Kill it, and do not wait: what it waits for itself may depend on us."""
        if standby is not None:
            standby.kill()
            self._leaving[standby.pidfd] = standby

    def _leave_before(self) -> None:
        """There is another that is ready, or none is needed."""
        self._leave(self._before)
        self._before = None

    def _give_way(self) -> None:
        """The standby is not ready: the one before it that is, if any, is the standby again."""
        self._leave(self._standby)
        self._standby, self._before = self._before, None
        ready_pid = self._standby.pid if self._standby is not None else 0
        self._session[Field.STANDBY_PID] = self._session[Field.STANDBY_READY] = ready_pid

    def _leave_all(self) -> None:
        """All but the worker; for the end."""
        self._leave(self._standby)
        self._standby = None
        self._leave_before()

    def _await_leaving(self) -> None:
        """Nothing that they may wait for depends on us any more."""
        while self._leaving:
            _pidfd, standby = self._leaving.popitem()
            self._poll.unregister(standby.pidfd)
            standby.end()

    # -- the loop ----------------------------------------------------------------------------

    def run(self) -> int:
        """Until the instance is no more; returns its exit code."""
        session = self._session
        try:
            self._worker = self._watch(self._adopted) if self._adopted else self._start("worker")
        except OSError as error:
            return self._never_up(f"no worker could be started: {error}", HostError.exit_code)
        session[Field.WORKER_PID] = self._worker.pid
        if self._adopted:
            session[Field.STANDBY_READY] = 0  # it was another supervisor's
            self._want_standby(0)
        self._watch_the_device()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: self._ask_to_end())
        while True:
            ready = self._poll.poll(self._patience_ms())
            for fd, _events in ready:
                if fd == self._worker.pidfd:
                    status = self._worker.ended()
                    if status is not None and (end := self._worker_ended(status)) is not None:
                        return end()
                elif self._standby is not None and fd == self._standby.pidfd:
                    self._standby_ended()
                elif self._before is not None and fd == self._before.pidfd:
                    if self._before.ended() is not None:
                        self._forget(self._before)
                        self._before = None
                elif fd in self._leaving:
                    if self._leaving[fd].ended() is not None:
                        self._forget(self._leaving.pop(fd))
                elif fd == self._handed.bell:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(fd)
                    self._rung()
            if self._rescue is not None:
                self._rescue.look(
                    time.monotonic(),
                    has_tiers=session[Field.TIERS] > 0,
                    served=session[Field.SERVED_PAGES],
                    refused=session[Field.REFUSED_STORES],
                )
            if self._standby_at_ns and time.monotonic_ns() >= self._standby_at_ns:
                self._standby_at_ns = 0
                if self._standby is None and not self._start_standby():
                    self._want_standby(STANDBY_RETRY_MS)

    def _patience_ms(self) -> int | None:
        waits_ms = [] if self._rescue is None else [LOOK_MS]
        if self._standby_at_ns:
            waits_ms.append(max(0, (self._standby_at_ns - time.monotonic_ns()) // 1_000_000 + 1))
        return min(waits_ms, default=None)

    def _want_standby(self, delay_ms: int) -> None:
        if self._session[Field.SURVIVES] and self._standby is None:
            self._standby_at_ns = time.monotonic_ns() + delay_ms * 1_000_000

    def _ask_to_end(self) -> None:
        self._asked_ns = time.monotonic_ns()
        if self._hears:
            self._worker.kill(signal.SIGTERM)
        else:
            self._ask_again = True

    def _rung(self) -> None:
        """A worker is up, or has taken over, or asks for a restart; or a standby is ready."""
        session = self._session
        if self._is_ready():
            self._leave_before()
        if session[Field.RESTART]:
            if session[Field.TAKING_DOWN]:
                self._refuse_restart(Refusal.TAKING_DOWN)
            elif session[Field.RESTART] == 2 and self._is_ready():
                # The standby that was started for it is ready: its turn.
                session[Field.ENDED_NS] = time.monotonic_ns()
                self._worker.kill()
            elif session[Field.RESTART] == 1:
                self._start_fresh()
        elif session[Field.UP]:
            self._let_go_of_the_pipe()
            self._watch_the_device()
            self._want_standby(STANDBY_DELAY_MS)
            # A successor rings when it listens; a bell from before that may still be there.
            self._hears = self._hears or session[Field.SERVING_NS] > session[Field.GO_NS]
            if self._ask_again and self._hears:
                self._ask_again = False
                self._worker.kill(signal.SIGTERM)

    def _start_fresh(self) -> None:
        """A standby of the version that is installed now. The one that is ready stays until this
        one is, too: should it not come to that, nothing has changed."""
        if not self._is_ready():
            self._give_way()
        ready = self._standby
        if self._start_standby():
            self._leave_before()  # of a restart that was given up
            self._before = ready
            self._session[Field.RESTART] = 2
        else:
            self._refuse_restart(Refusal.NO_PROCESS)
            self._want_standby(STANDBY_RETRY_MS)

    def _watch_the_device(self) -> None:
        if (
            self._rescue is None
            and not self._rescue_refused
            and (number := self._session[Field.LOOP])
        ):
            try:
                self._rescue = Rescue(f"loop{number - 1}")
            except OSError as error:
                self._rescue_refused = True
                self._log(f"no rescue if swap stands still for lack of memory: {error}")

    def _refuse_restart(self, why: int) -> None:
        self._session[Field.REFUSED] = why
        self._session[Field.RESTART] = 0

    def _let_go_of_the_pipe(self) -> None:
        """Once: later there may be no descriptor to be had."""
        if self._has_let_go:
            return
        self._has_let_go = True
        null = os.open("/dev/null", os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)

    def _standby_ended(self) -> None:
        assert self._standby is not None
        status = self._standby.ended()
        if status is None:
            return
        self._forget(self._standby)
        self._standby = None
        self._give_way()
        if self._session[Field.RESTART]:
            self._refuse_restart(Refusal.ENDED + abs(status))
        self._want_standby(STANDBY_DELAY_MS if status < 0 else STANDBY_RETRY_MS)

    def _worker_ended(self, status: int) -> Callable[[], int] | None:
        """Have the standby take over; or, where nobody is to, returns how to end."""
        session, now_ns = self._session, time.monotonic_ns()
        if session[Field.ENDING]:
            return lambda: self._finish(status)
        if not session[Field.UP] or not (session[Field.SURVIVES] or self._has_let_go):
            why = f"the worker of {self._name} ended with {status} before the instance was up"
            return lambda: self._never_up(why, status)
        if not session[Field.SURVIVES]:
            return lambda: self._lost(f"the worker ended ({status}), and nobody can succeed it")
        lived_ns = now_ns - session[Field.GO_NS]
        answered = session[Field.FIRST_REPLY_NS] > session[Field.GO_NS]
        replaced = session[Field.RESTART] == 2  # by us, for a fresh one that is ready
        self._deaths = 0 if answered or replaced or lived_ns > STEADY_NS else self._deaths + 1
        if self._deaths >= DEATHS_MAX:
            return lambda: self._lost(
                f"{self._deaths} workers in a row ended without an answer, the last with {status}"
            )
        if session[Field.ENDED_NS] < session[Field.SERVING_NS]:  # else we killed it, and know when
            session[Field.ENDED_NS] = now_ns
        if self._standby is not None and not self._is_ready():
            # Memory of its may have been swapped out while it started: to the device that nobody
            # serves now. One that is ready has none there; nor has one that is started now, which
            # takes no longer in all.
            self._give_way()
        self._let_go_of_the_pipe()  # or whoever waits for a word would wait for the successor's
        tries = 0
        while self._standby is None and not self._start_standby():
            tries += 1
            if tries == START_TRIES_MAX:
                return lambda: self._lost("no process can be started to succeed the worker")
            time.sleep(START_RETRY_S)
        assert self._standby is not None
        session[Field.TAKEOVERS] += 1
        session[Field.GO_NS] = now_ns
        os.eventfd_write(self._standby.go, 1)
        # The rest has time.
        self._forget(self._worker)
        self._hears = False
        self._worker, self._standby = self._standby, None
        self._leave_before()
        if self._asked_ns and (session[Field.TAKING_DOWN] or now_ns - self._asked_ns < STEADY_NS):
            self._ask_again = True  # the one that was asked did not come to the end of it
        session[Field.WORKER_PID] = self._worker.pid
        session[Field.STANDBY_PID] = session[Field.STANDBY_READY] = session[Field.RESTART] = 0
        self._standby_at_ns = 0
        return None

    # -- ends --------------------------------------------------------------------------------

    def _finish(self, status: int) -> int:
        """The worker took the instance down, or could not bring it up: nothing must be left."""
        from vswapfs.daemon import lock, takedown

        self._leave_all()
        try:
            takedown.take_down_remains(self._name, lambda _text: None, force=True)
        except HostError as error:
            self._log(f"not all was cleared up: {error}")
        self._await_leaving()
        lock.let_go(self._name, self._handed.lock)
        return status

    def _never_up(self, why: str, status: int) -> int:
        from vswapfs.daemon.report import Reporter
        from vswapfs.format.message import Failure

        self._log(why)
        reporter = Reporter(to_pipe=not self._session[Field.FOREGROUND])
        self._finish(status)
        with contextlib.suppress(VswapError):
            reporter.end(Failure(why, "see the kernel's log", HostError.exit_code))
        return HostError.exit_code

    def _lost(self, why: str) -> int:
        """Nobody serves any more: waiting requests get errors; off --force clears up."""
        from vswapfs.fuse import mount
        from vswapfs.host import state

        self._log(f"giving up: {why}")
        self._leave_all()
        if found := mount.find(self._name):
            mount.abort(found[1])
        self._await_leaving()
        state.remove(self._name)  # nobody can use it again, and its memory cannot be swapped out
        return 1

    def _log(self, text: str) -> None:
        if self._session[Field.FOREGROUND]:
            print(f"vswapfs: {text}", file=sys.stderr)
            return
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S,000')} ERROR   supervisor: {text}\n"
        with contextlib.suppress(OSError), open(instance.log_path(self._name), "a") as log:  # noqa: PTH123
            log.write(line)


def run(name: str, handed: Handed, worker: int | None = None, pidfd: int = -1) -> int:
    """Supervise an instance until it is no more."""
    hardening.flush_io_thread()
    hardening.spare_from_oom_killer()
    hardening.lock_all_memory()
    gc.disable()
    return Supervisor(name, handed, worker, pidfd).run()
