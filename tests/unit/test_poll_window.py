"""When the lane polls, and when it keeps the machine's idle processors awake."""

import pytest

from vswapfs.fuse.window import PollWindow

WINDOW_NS = 200_000


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    return []


def test_polls_when_requests_come_often_and_tells_it_once(told: list[bool]) -> None:
    polling = PollWindow(told.append, WINDOW_NS // 1000)
    assert (polling.ns, told) == (0, [])
    for _ in range(20):
        polling.learn(30_000)
    assert (polling.ns, told) == (WINDOW_NS, [True])


def test_one_pause_does_not_end_polling_but_several_do(told: list[bool]) -> None:
    polling = PollWindow(told.append, WINDOW_NS // 1000)
    for _ in range(50):
        polling.learn(30_000)
    polling.learn(10**9)
    assert polling.ns == WINDOW_NS
    for _ in range(8):
        polling.learn(10**9)
    assert polling.ns == 0
    assert told == [True], "only rest lets processors halt"


def test_after_a_rest_nothing_is_kept_until_requests_come_often_again(told: list[bool]) -> None:
    polling = PollWindow(told.append, WINDOW_NS // 1000)
    for _ in range(20):
        polling.learn(30_000)
    polling.rest()
    polling.rest()
    polling.learn(10**9)
    assert (polling.ns, polling.keeps_awake, told) == (0, False, [True, False])
    for _ in range(20):
        polling.learn(30_000)
    assert told == [True, False, True]


def test_never_polls_on_one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    polling = PollWindow(told.append, WINDOW_NS // 1000)
    for _ in range(20):
        polling.learn(1000)
    assert (polling.ns, told) == (0, [])


def test_another_window_is_used_from_now_on_and_none_never_polls(told: list[bool]) -> None:
    polling = PollWindow(told.append, WINDOW_NS // 1000)
    for _ in range(20):
        polling.learn(1000)
    polling.set(50)
    assert polling.ns == 0, "what was learned is forgotten"
    for _ in range(20):
        polling.learn(30_000)
    assert polling.ns == 50_000
    for _ in range(20):
        polling.learn(60_000)
    assert polling.ns == 0
    polling.set(0)
    for _ in range(20):
        polling.learn(0)
    assert polling.ns == 0
