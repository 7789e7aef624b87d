"""The control socket, both ends: any line to the daemon, and any answer to the command.

Of the daemon it is the real server with the real handlers, over a real store with a tier in memory.
Left out is what would reach the machine: taking the instance down, and opening media. A request has
answers that the command understands, the last one closes; no internal error; and no page, setting
or structure of the store is other than before.
"""

import contextlib
import logging
import os
import random
import socket
import typing
from collections.abc import Callable, Iterable
from typing import Any, Final
from unittest import mock

import msgspec
import trio
import trio.testing

from fuzzing import values
from fuzzing.machine import GEOMETRY, TIER_PATH, Machine, machine, pair
from fuzzing.source import Source
from vswapfs.backing import claim
from vswapfs.core.check import check
from vswapfs.ctl import client
from vswapfs.daemon import remains
from vswapfs.daemon.control import ControlServer
from vswapfs.daemon.inspect import Inspector
from vswapfs.daemon.scrub import Scrubber
from vswapfs.daemon.service import Service
from vswapfs.daemon.settings import Settings
from vswapfs.daemon.succession import Succession
from vswapfs.daemon.tier_commands import TierCommands
from vswapfs.daemon.tracing import Tracing
from vswapfs.errors import LostPageError, VswapError
from vswapfs.format.message import (
    LINE_MAX_BYTES,
    PARTS,
    SAME_FILLED,
    STATES,
    Answer,
    Config,
    Request,
    decode_answer,
    decode_config,
    encode,
)
from vswapfs.format.settings import LOG_LEVELS, AskSet
from vswapfs.format.trace import EVENTS, Events
from vswapfs.fuse.window import PollWindow
from vswapfs.host import memory
from vswapfs.units import PAGE_BYTES

_AS_LINES: Final = 2
"""The first byte of an input that has the lines themselves in it."""
SEEDS: Final = [
    *(bytes([kind]) + random.Random(kind).randbytes(80) for kind in range(40)),
    *(bytes([_AS_LINES]) + lines for lines in (
        b'{"type":"set","key":"pool_limit_bytes","value":8388608}\n{"type":"status"}\n',
        b'{"type":"set","key":"pool_limit_bytes","value":"auto"}\n{"type":"stats"}\n',
        b'{"type":"set","key":"write_budget_bytes_per_day","value":1048576}\n{"type":"writeback"}\n',
        b'{"type":"set","key":"write_budget_bytes_per_day","value":null}\n{"type":"tier-list"}\n',
        b'{"type":"set","key":"writeback_stop_pct","value":20}\n'
        b'{"type":"set","key":"writeback_start_pct","value":30}\n{"type":"drain"}\n',
        b'{"type":"set","key":"recompress_level","value":9}\n{"type":"sample"}\n',
        b'{"type":"set","key":"polling_window_us","value":0}\n{"type":"off"}\n',
        b'{"type":"set","key":"log_level","value":"error"}\n{"type":"lost"}\n',
        b'{"type":"writeback","idle_s":0.5,"incompressible":true}\n{"type":"scrub"}\n',
        b'{"type":"writeback"}\n{"type":"desc","start_bytes":0,"end_bytes":65536}\n',
        b'{"type":"writeback"}\n{"type":"tier-remove","path":"/t"}\n{"type":"tier-list"}\n',
        b'{"type":"tier-add","tier":{"path":"/u","size_bytes":4194304}}\n{"type":"table"}\n',
        b'{"type":"trace","events":["load"]}\n{"type":"restart"}\n{"type":"adopt","pid":1}\n',
    )),
]  # fmt: skip

_REQUESTS: Final = typing.get_args(Request)
_ANSWERS: Final = typing.get_args(Answer)
_WORDS: Final = (
    TIER_PATH, "/nowhere/a", "a\0b", "", "vswap0", *STATES, *SAME_FILLED, *EVENTS, *LOG_LEVELS,
    *(field.name for field in msgspec.structs.fields(Config)), "auto", "\ud7ff", "x" * 5000,
)  # fmt: skip
_LINES: Final = 3
_KEYS: Final = tuple(field.name for field in msgspec.structs.fields(Config))
_PAGES: Final = 64
_watch: Final = memory.Watch()
"""Of all daemons: each would keep a file open until the process ends."""
_TIME_MAX_S: Final = 1e10
"""Of the clock that the handlers see, which goes on by itself when all of them wait."""


def run(data: bytes) -> None:
    source = Source(data)
    kind = source.byte()
    if kind == _AS_LINES:
        ask_the_daemon(source.rest().splitlines(keepends=True)[:_LINES])
    elif kind & 1:
        _answer_to_the_command(source)
    else:
        ask_the_daemon(_line(source) for _ in range(_LINES))


def _answer_to_the_command(source: Source) -> None:
    content = values.message(source, source.choice(_ANSWERS), _WORDS)
    with contextlib.suppress(VswapError):
        client.read_answer("vswap0", values.mutilate(source, msgspec.json.encode(content)))


# -- the daemon ------------------------------------------------------------------------------


def ask_the_daemon(lines: Iterable[bytes]) -> list[Answer]:
    """Send these, each on a connection of its own; the answers to all. Raises for a finding."""
    kernel, device = pair()
    names, behind = pair()
    with (
        kernel, device, names, behind, machine(device, behind, tier=True) as made,
        mock.patch.object(claim, "_open", _open_nothing),
        mock.patch.object(remains, "find", return_value=remains.Remains(None, None, "", [])),
        mock.patch.object(trio.to_thread, "run_sync", _at_once),
        mock.patch.object(memory, "Watch", return_value=_watch),
        mock.patch.object(logging, "getLogger", return_value=logging.Logger("fuzz")),
    ):  # fmt: skip
        store = made.store
        rng = random.Random(1)
        pages = {page: rng.randbytes(PAGE_BYTES) for page in range(0, _PAGES, 2)}
        pages |= {page: bytes([page]) * PAGE_BYTES for page in range(1, _PAGES, 2)}
        for page, contents in pages.items():
            store.store(page, contents)
        made.tiers.pump()
        made.lane.turn()
        daemon = _Daemon(made)
        for line in lines:
            clock = trio.testing.MockClock(autojump_threshold=0)
            trio.run(daemon.converse, line, clock=clock)
        assert daemon.server.internal_errors == 0, "an internal error"
        assert made.lane.counters["internal_errors"] == 0, "an internal error of the lane"
        decode_config(made.session.config)  # a successor has to
        made.session.tiers()
        assert (found := check(store)) == [], found
        for page, contents in pages.items():
            store.fetched = {}
            assert _loaded(made, page) == contents, "a page has changed"
        told = made.tiers.answer()
        encode(told)
        assert all(tier.state == "ok" for tier in told.tiers), "a tier was made to fail"
        os.close(daemon.succession._supervisor_fd)
        return daemon.answers


def _loaded(made: Machine, page: int) -> bytes:
    """The page, wherever it is."""
    fetched: dict[tuple[int, int], bytes | LostPageError] = {}
    plans = made.store.missing(page, page + 1)
    if plans:
        made.tiers.read(plans, fetched.update)
        made.lane.turn()
    made.store.fetched = fetched
    return made.store.load(page)


async def _at_once(job: Callable[..., Any], *arguments: Any) -> Any:
    """In place of a thread, which the clock would not wait for."""
    await trio.lowlevel.checkpoint()
    return job(*arguments)


def _open_nothing(*_arguments: object) -> Any:
    raise FileNotFoundError(2, "not here")


class _Daemon:
    """As much of a Service as answers commands."""

    def __init__(self, made: Machine) -> None:
        lane, tiers, session = made.lane, made.tiers, made.session
        config = Config("vswap0", "/nowhere", GEOMETRY.page_count * PAGE_BYTES, "same", True)
        session.keep_config(encode(config))
        self._service = serving = object.__new__(Service)
        commands = TierCommands(made.store, lane, tiers, config.name)
        self.succession = succession = object.__new__(Succession)
        vars(succession).update(
            _session=session, _supervisor_fd=os.open("/dev/null", os.O_RDONLY), _handed=(),
            supervisor_has_ended=True, _watched=trio.Event(), _takedown_lock=None,
        )  # fmt: skip
        settings = Settings(
            config, session, made.store, lane, PollWindow(lambda _on: None, 0), tiers
        )
        inspector = Inspector(
            config, made.store, lane, tiers, commands, succession, lambda: 0, lambda: 0
        )
        vars(serving).update(
            _config=config, _lane=lane, _store=made.store, _tiering=tiers, _tier_commands=commands,
            _tracing=Tracing(lane), _settings=settings, _inspector=inspector, _outcomes=[],
            _scrubber=Scrubber(made.store, lane, tiers), _succession=succession,
            _take_down=_nothing_to_take_down,
        )  # fmt: skip
        self.server = ControlServer("/nowhere", serving._handle)
        self.answers: list[Answer] = []

    async def converse(self, line: bytes) -> None:
        """One request and all its answers."""
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        slot = object()
        await self.server._slots.acquire_on_behalf_of(slot)
        async with trio.open_nursery() as nursery:
            connection = trio.socket.from_stdlib_socket(theirs)
            nursery.start_soon(self.server._converse, connection, slot)
            with trio.fail_after(_TIME_MAX_S):
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
                async with stream:
                    await self._talk(stream, line)

    async def _talk(self, stream: trio.SocketStream, line: bytes) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(line)
        if not line.endswith(b"\n"):
            await stream.send_eof()
        received = b""
        is_closed = False
        with contextlib.suppress(trio.BrokenResourceError):
            while part := await stream.receive_some(1 << 16):
                *lines, received = (received + part).split(b"\n")
                assert len(received) <= LINE_MAX_BYTES, "a line too long for the command"
                for each in lines:
                    assert not is_closed, "an answer after the last one"
                    answer = decode_answer(each)
                    self.answers.append(answer)
                    is_closed = not isinstance(answer, PARTS)
                    if type(answer) is Events:  # for ever, if nobody hangs up
                        return
        assert not received, "half an answer"
        assert is_closed or not line.endswith(b"\n"), "no answer"


async def _nothing_to_take_down(report: Any) -> None:
    report("unmount")


def _line(source: Source) -> bytes:
    kind = source.choice(_REQUESTS)
    content = values.message(source, kind, _WORDS)
    if kind is AskSet and source.byte() % 4:
        content["key"] = source.choice(_KEYS)
    line = values.mutilate(source, msgspec.json.encode(content))
    return line if source.one_in(16) else line.replace(b"\n", b" ") + b"\n"
