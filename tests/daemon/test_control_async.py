"""The control server and the namespace inside trio, without a mount."""

from pathlib import Path

import pyfuse3
import pytest
import trio

from vswapfs.daemon.control import CONNECTIONS_MAX, ControlServer, Send
from vswapfs.errors import UsageError
from vswapfs.format import message
from vswapfs.fuse.namespace import SWAP_INODE, Namespace

pytestmark = pytest.mark.trio

CONTEXT = pyfuse3.RequestContext


async def answer(path: Path, request: bytes) -> message.Answer | None:
    async with await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(request)
        received = b""
        while not received.endswith(b"\n"):
            part = await stream.receive_some()
            if not part:
                return None
            received += part
    return message.decode_answer(received)


async def handler(request: message.Request, send: Send) -> None:
    match request:
        case message.AskStats():
            await send(message.Stats({"checksum_errors": 0}))
        case message.AskCheck():
            raise ZeroDivisionError("a defect")
        case message.AskOff():
            raise UsageError("no", remedy="never")
        case _:
            await trio.sleep_forever()


async def test_answers_failures_and_defects(tmp_path: Path) -> None:
    path = tmp_path / "control"
    server = ControlServer(str(path), handler)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        for _ in range(3):
            assert isinstance(await answer(path, b'{"type":"stats"}\n'), message.Stats)
            failure = await answer(path, b'{"type":"off"}\n')
            assert failure == message.Failure("no", "never", 2)
            defect = await answer(path, b'{"type":"check"}\n')
            assert isinstance(defect, message.Failure)
            assert "a defect" in defect.message
        assert server.internal_errors == 3
        nursery.cancel_scope.cancel()


async def test_clients_that_say_nothing_do_not_keep_others_out(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "control"
    async with trio.open_nursery() as nursery:
        await nursery.start(ControlServer(str(path), handler).serve)
        silent = [await trio.open_unix_socket(str(path)) for _ in range(CONNECTIONS_MAX)]
        assert isinstance(await answer(path, b'{"type":"stats"}\n'), message.Stats)
        for stream in silent:
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_client_that_leaves_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "control"
    server = ControlServer(str(path), handler)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        for request in (b"", b'{"type":', b'{"type":"stats"}\n'):
            async with await trio.open_unix_socket(str(path)) as stream:
                await stream.send_all(request)
        assert isinstance(await answer(path, b'{"type":"stats"}\n'), message.Stats)
        assert server.internal_errors == 0
        nursery.cancel_scope.cancel()


async def test_a_handler_of_the_namespace_never_raises_anything_but_fuseerror() -> None:
    async def broken() -> bytes:
        raise KeyError("a defect")

    namespace = Namespace(1 << 20, broken)
    stats_inode = pyfuse3.InodeT(3)
    for _ in range(2):
        with pytest.raises(pyfuse3.FUSEError):
            await namespace.open(stats_inode, 0, CONTEXT())
    assert namespace.internal_errors == 2
    attributes = await namespace.getattr(pyfuse3.InodeT(SWAP_INODE), CONTEXT())
    assert attributes.st_size == 1 << 20
    with pytest.raises(pyfuse3.FUSEError):
        await namespace.getattr(pyfuse3.InodeT(99), CONTEXT())
    assert namespace.internal_errors == 2


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"stats","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"type":"stats","x":' + b'{"a":' * 50_000 + b"}\n",
        b'{"type":"tier-remove","path":"\xff"}',
        b'{"type":"\xff"}',
        b"\0",
    ],
    ids=["lists in lists", "objects in objects", "not UTF-8", "type not UTF-8", "no JSON"],
)
async def test_what_is_no_request_is_no_defect(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "control"
    server = ControlServer(str(path), handler)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        failure = await answer(path, line + b"\n")
        assert isinstance(failure, message.Failure)
        assert (failure.exit_code, failure.message[:13]) == (2, "not a request")
        assert server.internal_errors == 0
        nursery.cancel_scope.cancel()
