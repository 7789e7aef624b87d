"""The last resort, with files in place of the kernel's."""

from pathlib import Path

import pytest

from vswapfs.host import memory, rescue
from vswapfs.host.rescue import STALLED_S, Rescue


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


def test_nothing_is_ended_while_anything_is_completed(machine: Machine) -> None:
    watch = Rescue("loop9")
    for second in range(100):
        machine.device(completed=100 + second // 10, in_flight=3)
        assert not watch.look(float(second))


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
