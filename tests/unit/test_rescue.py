"""The last resort, with files in place of the kernel's."""

import time
from pathlib import Path

import pytest

from vswapfs.host import memory, rescue
from vswapfs.host.relief import PIPE_BYTES, PIPES, Relief
from vswapfs.host.rescue import AGAIN_S, RELIEF_S, STALLED_IN_RAM_S, STALLED_S, Rescue


class Machine:
    """A device's figures, the machine's memory, and whether a process was ended."""

    def __init__(self, directory: Path) -> None:
        self.stat, self.trigger = directory / "stat-loop9", directory / "trigger"
        self.trigger.touch()
        self.has_memory = False

    def device(self, completed: int, in_flight: int) -> None:
        self.stat.write_text(f"{completed:8} 0 0 0 5 0 0 0 {in_flight:8} 0 0 7 0 0 0 0 0\n")

    @property
    def kills(self) -> int:
        return len(self.trigger.read_bytes())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(rescue, "STAT", f"{tmp_path}/stat-{{}}")
    monkeypatch.setattr(rescue, "TRIGGER", str(made.trigger))
    monkeypatch.setattr(memory.Watch, "can_spare_some", lambda _self: made.has_memory)
    made.device(completed=100, in_flight=3)
    return made


def test_a_device_that_stands_still_without_memory_costs_a_process(machine: Machine) -> None:
    watch = Rescue("loop9")
    assert not watch.look(1000.0)
    assert not watch.look(1000.0 + STALLED_S - 1)
    assert watch.look(1000.0 + STALLED_S)
    assert machine.trigger.read_bytes() == b"f"
    # That one has time to go.
    assert not watch.look(1001.0 + STALLED_S)
    assert watch.look(1000.0 + 2 * STALLED_S)
    assert machine.kills == 2


def test_without_a_disk_there_is_less_to_wait_for(machine: Machine) -> None:
    watch = Rescue("loop9")
    assert not watch.look(1000.0, has_tiers=False)
    assert not watch.look(1000.0 + STALLED_IN_RAM_S - 1, has_tiers=False)
    assert not watch.look(1000.0 + STALLED_IN_RAM_S, has_tiers=True)
    assert watch.look(1000.0 + STALLED_IN_RAM_S, has_tiers=False)


def test_nothing_is_ended_while_anything_is_completed(machine: Machine) -> None:
    watch = Rescue("loop9")
    for second in range(100):
        machine.device(completed=100 + second // 10, in_flight=3)
        assert not watch.look(float(second))


def looks(machine: Machine, watch: Rescue, served: int, refused: int, seconds: int) -> list[float]:
    """So many pages served and refused in each second; when a process was ended."""
    ended: list[float] = []
    for second in range(seconds):
        machine.device(completed=100 + second, in_flight=second % 2)
        now = {"served": second // 2 * 2 * served, "refused": second // 2 * 2 * refused}
        if watch.look(float(second), has_tiers=False, **now):
            ended.append(second)
    return ended


def test_refusals_complete_nothing(machine: Machine) -> None:
    assert looks(machine, Rescue("loop9"), 100, 1000, 20) == [6, 11, 16]
    assert looks(machine, Rescue("loop9"), 200, 1000, 20) == []
    assert looks(machine, Rescue("loop9"), 0, 0, 20) == []


def test_it_is_over_once_nothing_is_refused_any_more(machine: Machine) -> None:
    watch = Rescue("loop9")
    for second in range(50):
        machine.device(completed=100 + second, in_flight=1)
        assert not watch.look(float(second), has_tiers=False, refused=1000 * min(second, 2))


def test_figures_of_another_worker_begin_anew(machine: Machine) -> None:
    watch = Rescue("loop9")
    assert looks(machine, watch, 1000, 100_000, 4) == []
    assert looks(machine, watch, 1000, 10, 20) == []


def test_nothing_is_ended_while_nothing_is_asked(machine: Machine) -> None:
    machine.device(completed=100, in_flight=0)
    watch = Rescue("loop9")
    for second in range(100):
        assert not watch.look(float(second))
    machine.device(completed=100, in_flight=1)
    assert not watch.look(100.0), "only now something waits"


def test_nothing_is_ended_while_there_is_memory(machine: Machine) -> None:
    machine.has_memory = True
    watch = Rescue("loop9")
    for second in range(100):
        assert not watch.look(float(second))
    assert machine.kills == 0


def test_a_machine_that_does_not_allow_it(machine: Machine) -> None:
    machine.trigger.unlink()
    with pytest.raises(OSError, match="trigger"):
        Rescue("loop9")


def given_back(relief: Relief) -> int:
    deadline_s = time.monotonic() + 10
    given_bytes = 0
    while given_bytes < PIPES * PIPE_BYTES:
        assert time.monotonic() < deadline_s, "the thread does not fill them"
        given_bytes += relief.give_back()
        time.sleep(0.01)
    return given_bytes


def test_relief_is_given_once_and_can_be_taken_again() -> None:
    relief = Relief()
    assert given_back(relief) == PIPES * PIPE_BYTES
    assert relief.give_back() == 0
    relief.take_again()
    assert given_back(relief) == PIPES * PIPE_BYTES


class CountedRelief(Relief):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def give_back(self) -> int:
        self.calls.append("give")
        return PIPE_BYTES

    def take_again(self) -> None:
        self.calls.append("take")


def test_memory_is_given_back_before_anyone_is_ended(machine: Machine) -> None:
    relief = CountedRelief()
    watch = Rescue("loop9", relief)
    relief.calls.clear()
    watch.look(1000.0)
    watch.look(1000.0 + RELIEF_S - 1)
    assert relief.calls == ["take"]
    watch.look(1000.0 + RELIEF_S)
    assert (relief.calls, machine.kills) == (["take", "give"], 0)
    for at, (after_s, taken) in enumerate(((1, 0), (AGAIN_S, 0), (AGAIN_S + 1, 1)), 101):
        machine.device(completed=at, in_flight=3)
        watch.look(1000.0 + RELIEF_S + after_s)
        assert relief.calls[2:] == ["take"] * taken
    assert machine.kills == 0
