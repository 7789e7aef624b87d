"""One instance from start to end: brings it up, serves, answers commands, takes it down.

Owns the order of start and end. Always holds: what was set up is undone when a later step fails;
a signal never costs a page (swapoff comes first; if it fails, the daemon serves on and says so).
"""

import contextlib
import functools
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
import pyfuse3
import trio

from vswapfs.core.check import check
from vswapfs.core.stats import nest
from vswapfs.core.store import SameFilled, Store
from vswapfs.daemon import lock, remains, succession, takedown
from vswapfs.daemon.ask import ask
from vswapfs.daemon.control import ControlServer, Send, send_list
from vswapfs.daemon.forehand import Forehand
from vswapfs.daemon.inspect import Inspector
from vswapfs.daemon.logs import set_level
from vswapfs.daemon.mapped import State
from vswapfs.daemon.medium import OpenTiers, open_again
from vswapfs.daemon.report import Reporter
from vswapfs.daemon.scrub import Scrubber
from vswapfs.daemon.settings import Settings, first_limit
from vswapfs.daemon.steps import do_with_steps
from vswapfs.daemon.succession import Succession
from vswapfs.daemon.tier_commands import ProgressReporter, TierCommands
from vswapfs.daemon.tiering import Tiering
from vswapfs.daemon.tracing import Tracing
from vswapfs.daemon.upkeep import every_second
from vswapfs.errors import HostError, UnmountedError, VswapError
from vswapfs.format import instance, message
from vswapfs.format.message import Failure, Ready, decode_config
from vswapfs.format.session import KEY_BYTES, Field
from vswapfs.format.settings import AskSet
from vswapfs.format.table import AskTable
from vswapfs.format.trace import AskTrace
from vswapfs.fuse import mount, wire
from vswapfs.fuse.journal import Journal
from vswapfs.fuse.lane import Lane
from vswapfs.fuse.namespace import SWAP_INODE, Namespace
from vswapfs.fuse.window import PollWindow
from vswapfs.host import boost, hardening, loop, swap
from vswapfs.host.idling import IdleProcessors
from vswapfs.units import format_size

DRAIN_REPORT_S: Final = 3.0
COUNT_POLL_S: Final = 0.02

_log = logging.getLogger(__name__)


class Service:
    """One of ``begin`` and ``succeed`` is to be run, once."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._session = state.session
        self._config = config = state.config
        self._outcomes = state.outcomes
        self._size_bytes = config.size_bytes
        self._file = f"{config.mountpoint}/{instance.SWAP_FILE}"
        self._lane_ended = trio.Event()
        self._taken_down = False
        self._takedown_lock = trio.Lock()
        self._namespace = Namespace(self._size_bytes, self._stats_json)
        self._control = ControlServer(instance.control_path(config.name), self._handle)
        self._succession = Succession(state.handed, state.session, self._takedown_lock)

    # -- start and end -----------------------------------------------------------------------

    async def begin(self, tiers: OpenTiers, reporter: Reporter) -> int:
        """Bring the instance up, and serve."""
        self._reporter = reporter
        request = succession.read_init(self._state.handed.device)
        self._session.keep_init(request)
        if not wire.can_resend(request):
            self._session[Field.JOURNAL] = 1
        # Microseconds: beyond the sequences of every earlier instance, whose segments may be there.
        sequence = time.time_ns() // 1000
        same_filled = SameFilled(self._config.same_filled)
        self._store = Store(self._state.geometry, self._state.buffers, same_filled, sequence)
        self._prepare_lane()
        self._make_lane()
        for tier in tiers:
            self._tiering.add(*tier)
        self._session[Field.SERVING_NS] = time.monotonic_ns()
        self._lane.start([request])
        failure: VswapError | None = None
        async with self._serving() as nursery:
            try:
                nursery.start_soon(self._serve_names)
                self._start_tasks(nursery)
                await nursery.start(self._control.serve)
                device = await trio.to_thread.run_sync(self._bring_up)
                self._settle()
                await ask(self._lane, self._forehand.look_after)
                self._session[Field.UP] = 1
                self._reporter.end(Ready(self._config.mountpoint, device))
            except VswapError as error:
                failure = await self._give_up(error)
                if self._taken_down:
                    for path, backing, _superblock in tiers:
                        backing.unmake(path)
            else:
                self._succession.ring()
                _log.info("%s is up: %s", self._config.name, device or self._file)
        if failure:
            raise failure
        return self._end()

    async def succeed(self) -> int:
        """Get ready, wait until the worker has ended, and go on in its place."""
        self._prepare_lane()
        async with self._serving() as nursery:
            nursery.start_soon(self._serve_names)
            await succession.introduce(self._lane_end_fd, self._session.init_request)
            self._state.prefault()
            self._settle()
            if not await self._succession.turn_has_come():
                return 0  # nor is there anything to take down: the worker lives
            present = self._take_over()
            self._start_tasks(nursery)
            nursery.start_soon(self._serve_on)
            _log.info("took over, with %d requests of the journal", present)
        return self._end()

    def _take_over(self) -> int:
        """All that has to be done before the first request is served."""
        state, session = self._state, self._session
        self._config = config = decode_config(session.config)  # settings may have changed since
        set_level(config.log_level)
        session[Field.TAKING_DOWN] = 0  # whoever was at it is dead
        session.count_tiers()
        entries = session.tiers()
        self._store = store = Store.attach(
            state.geometry,
            state.buffers,
            SameFilled(config.same_filled),
            time.time_ns() // 1000,
            [entry.slot_count for entry in entries],
            {entry.number for entry in entries if not entry.is_present},
            int(time.monotonic()),
        )
        self._make_lane()
        for entry in entries:
            if entry.is_present:
                medium = open_again(
                    entry, config.name, state.geometry.segment_bytes, encrypt=config.encrypt
                )
                self._tiering.restore(entry.number, entry.path, *medium)
        left: list[bytes] = []
        if self._journal is not None:
            left = self._journal.left()
        else:
            succession.ask_to_resend(state.handed.device)
        if config.pool_limit_bytes == "auto":
            # What the limit was nobody knows; room for a second, until it is set anew.
            ram = store.segments.ram
            ram.limit = min(ram.slot_count, max(ram.limit, ram.used_count * 9 // 8 + 16))
        session[Field.SERVING_NS] = time.monotonic_ns()
        self._lane.start(left)
        return len(left)

    async def _serve_on(self) -> None:
        """What can wait until requests are served again."""
        try:
            # By itself, between requests: in one go it takes 0.13 s a GiB, and all I/O waits.
            while await ask(self._lane, lambda: self._store.recount is not None):  # noqa: ASYNC110
                await trio.sleep(COUNT_POLL_S)
            await ask(self._lane, self._forehand.look_after)
        except UnmountedError:
            return
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(self._control.serve)
            except HostError as error:
                _log.error("no commands can be given: %s", error)
            self._succession.ring()

    def _prepare_lane(self) -> None:
        """What it needs that takes time to make: pyfuse3 behind it, and the buffer for requests."""
        self._lane_end_fd, pyfuse3_end_fd = mount.make_pair()
        try:
            pyfuse3.init(self._namespace, f"/dev/fd/{pyfuse3_end_fd}", set())
        except RuntimeError as error:
            raise HostError("start pyfuse3", str(error)) from None
        self._journal = Journal(self._state.journal) if self._session[Field.JOURNAL] else None
        self._buffer = self._journal.buffer if self._journal else wire.request_buffer()

    def _make_lane(self) -> None:
        token = trio.lowlevel.current_trio_token()
        idle_processors = IdleProcessors()
        self._outcomes.append(idle_processors.outcome)
        window = PollWindow(idle_processors.keep_awake, self._config.polling_window_us)
        self._lane = Lane(
            self._store,
            self._state.handed.device,
            self._lane_end_fd,
            SWAP_INODE,
            ended=functools.partial(self._lane_has_ended, token),
            window=window,
            buffer=self._buffer,
            journal=self._journal,
        )
        self._lane.after_reply = self._first_reply
        ram = self._store.segments.ram
        ram.limit = first_limit(self._config, self._state.geometry)
        self._tiering = Tiering(
            self._store, self._lane, self._session, self._config.write_budget_bytes_per_day,
            self._state.cipher,
        )  # fmt: skip
        self._tier_commands = TierCommands(
            self._store, self._lane, self._tiering, self._config.name
        )
        self._tracing = Tracing(self._lane)
        self._settings = Settings(
            self._config, self._session, self._store, self._lane, window, self._tiering
        )
        self._scrubber = Scrubber(self._store, self._lane, self._tiering)
        self._inspector = Inspector(
            self._config, self._store, self._lane, self._tiering, self._tier_commands,
            self._succession, self._state.tables_bytes,
            lambda: self._namespace.internal_errors + self._control.internal_errors,
        )  # fmt: skip
        self._lane.tiers = self._tiering
        self._tiering.start()
        regions = self._state.regions
        self._forehand = Forehand(self._store, self._lane, regions["pool"], regions["descriptors"])
        self._lane.look_after = self._forehand.look_after
        self._forehand.start()

    def _lane_has_ended(self, token: trio.lowlevel.TrioToken) -> None:
        """On the lane. By a defect: a successor goes on with what is there, and at once, because a
        thread of ours may be waiting for a page that only a lane can give it."""
        session = self._session
        if self._lane.has_failed and not session[Field.ENDING]:
            os.kill(os.getpid(), signal.SIGKILL)
        token.run_sync_soon(self._lane_ended.set)

    def _first_reply(self, header: bytes) -> None:
        self._session[Field.FIRST_REPLY_NS] = time.monotonic_ns()
        self._lane.after_reply = self._journal.answered if self._journal else None
        if self._journal:
            self._journal.answered(header)

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[trio.Nursery]:
        """Around all that is done while the lane runs; then everything is ended."""
        try:
            async with trio.open_nursery() as nursery:
                yield nursery
                if not self._is_serving():
                    nursery.cancel_scope.cancel()
                    return
                await self._lane_ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            pyfuse3.close(unmount=False)
            # Only now: pyfuse3 reports the end of the pair as an I/O error.
            os.close(self._lane_end_fd)
            if self._is_serving():
                await trio.to_thread.run_sync(self._forehand.stop)
                await trio.to_thread.run_sync(self._tiering.stop)

    def _settle(self) -> None:
        """Nearly all that stays is there."""
        self._outcomes.append(hardening.freeze_collector())
        hardening.fill_heap()

    def _start_tasks(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self._obey_signals)
        nursery.start_soon(self._succession.watch_supervisor)
        nursery.start_soon(
            every_second, self._config, self._session, self._store, self._lane, self._tiering,
            self._forehand,
        )  # fmt: skip
        nursery.start_soon(self._scrubber.background)

    def _is_serving(self) -> bool:
        return hasattr(self, "_scrubber")

    def _end(self) -> int:
        """The mount is gone; the exit code."""
        self._session[Field.ENDING] = 1
        self._session.keep_key(bytes(KEY_BYTES))
        if self._succession.supervisor_has_ended:
            lock.let_go(self._config.name, self._state.handed.lock)
        if not self._taken_down:
            _log.error("the mount was ended from outside; what was swapped is lost")
            return 1
        _log.info("%s is down", self._config.name)
        return 0

    async def _give_up(self, error: VswapError) -> VswapError:
        """Bringing up failed: undo it. If that fails too, say so at once and serve on, because
        swap may be active and hold pages already."""
        _log.error("%s", error)
        try:
            await self._take_down(_log.info)
        except HostError as second:
            _log.error("not undone, serving on: %s", second)
            error.message += f"; undoing it failed too, so the daemon serves on: {second.message}"
            error.remedy = f"vswapctl off {self._config.name}"
            self._session[Field.UP] = 1  # pages may be there
            with contextlib.suppress(HostError):
                self._reporter.end(Failure(error.message, error.remedy, error.exit_code))
            self._succession.ring()
        return error

    def _bring_up(self) -> str | None:
        """The steps up to swapon, each reported before it is done; returns the loop device.

        On a thread of its own: they do I/O to the area that we serve.
        """
        config, step = self._config, self._reporter.step
        if not config.swap:
            return None
        step("attach a loop device")
        device = loop.attach(self._file)
        remains.keep_device(config.name, device)
        self._session[Field.LOOP] = 1 + int(device.removeprefix("/dev/loop"))
        step(f"mkswap {device}")
        swap.make(device, config.name)
        boost.hold_off(config.name)
        step(f"swapon {device}")
        self._session[Field.UP] = 1  # from here on there may be pages
        try:
            swap.on(device, config.priority)
        finally:
            self._session[Field.UP] = device in swap.active_areas()
        return device

    async def _take_down(self, report: Callable[[str], None]) -> None:
        """Raises HostError; the instance serves on then, and it can be tried again."""
        async with self._takedown_lock:
            if self._taken_down:
                return
            # In the order of the log, and not in that of the page tables: 5 times as fast as
            # swapoff alone (tools/bench tiers).
            self._tiering.is_draining = True
            self._session[Field.TAKING_DOWN] = 1
            try:
                await self._drain(report)
                await trio.to_thread.run_sync(takedown.take_down, self._config.name, report)
            finally:
                self._tiering.is_draining = False
                self._session[Field.TAKING_DOWN] = 0
            self._taken_down = True
            self._session[Field.ENDING] = 1  # there is nothing left to succeed to

    async def _drain(self, report: Callable[[str], None]) -> None:
        """Speed only: whatever goes wrong here, swapoff reads the rest page by page."""
        if not self._tiering.tiers:
            return

        async def tell(answer: message.Answer) -> None:
            if isinstance(answer, message.Progress):
                done, total = format_size(answer.done_bytes), format_size(answer.total_bytes)
                report(f"read back into RAM: {done} of {total}")

        try:
            await self._tier_commands.drain(ProgressReporter(tell, DRAIN_REPORT_S))
        except Exception as error:
            _log.exception("drain")
            report(f"drain: {error}")

    async def _obey_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                _log.info("%s: taking %s down", signal.Signals(number).name, self._config.name)
                try:
                    await self._take_down(_log.info)
                except Exception as error:
                    _log.error("not taken down, serving on: %s", error)

    async def _serve_names(self) -> None:
        """pyfuse3's main loop. If it fails, page I/O goes on without it."""
        try:
            await pyfuse3.main()
        except Exception:
            _log.exception("pyfuse3 ended by a defect; page I/O goes on")

    # -- commands ----------------------------------------------------------------------------

    async def _handle(self, request: message.Request, send: Send) -> None:
        match request:
            case message.AskStatus():
                await send(await self._inspector.status(self._outcomes))
            case message.AskStats():
                await send(await self._inspector.stats())
            case message.AskSample():
                await send(await self._inspector.sample(self._outcomes))
            case message.AskDescriptors():
                await self._inspector.describe(request, send)
            case message.AskCheck():
                found = await ask(self._lane, lambda: check(self._store))
                await send_list(send, message.Findings, found)
                await send(message.Done())
            case AskTrace():
                await self._tracing.follow(request, send)
            case AskSet():
                await send(await self._settings.change(request))
            case AskTable():
                await self._inspector.table(request, send)
            case message.AskOff():
                _log.info("asked to take %s down", self._config.name)
                await do_with_steps(self._take_down, send)
            case message.AskRestart():
                await self._tier_commands.check_paths()
                await self._succession.restart(send)
            case message.AskAdopt():
                await send(self._succession.hand_over(request.pid))
            case message.AskTiers():
                await send(await ask(self._lane, self._tiering.answer))
            case message.AskTierAdd():
                await self._tier_commands.add(request.tier)
                await send(message.Done())
            case message.AskTierRemove():
                await self._tier_commands.remove(request.path, send)
                await send(message.Done())
            case message.AskWriteback():
                await self._tier_commands.writeback(
                    idle_s=request.idle_s, incompressible=request.incompressible,
                    max_bytes=request.max_bytes, send=send,
                )  # fmt: skip
                await send(message.Done())
            case message.AskDrain():
                await self._tier_commands.drain(ProgressReporter(send))
                await send(message.Done())
            case message.AskLost():
                await send_list(send, message.Lost, await self._tier_commands.lost())
                await send(message.Done())
            case message.AskScrub():
                await self._scrubber.answer(request, send)

    async def _stats_json(self) -> bytes:
        return msgspec.json.encode(nest((await self._inspector.stats()).values)) + b"\n"
