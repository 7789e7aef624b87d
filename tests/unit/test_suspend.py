"""The order of hibernation with a kernel that fails at any step: all go on, and there is no image.

The kernel is a fake; what it does is in tests/vm/test_hibernate.py.
"""

import contextlib
import gc
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from vswapfs.backing.memory import MemoryBacking
from vswapfs.errors import HostError, ImageFormatError, VswapError
from vswapfs.format.image import State, Step
from vswapfs.format.tier import (
    SEGMENT_MIN_BYTES,
    SUPERBLOCK_COPY_OFFSET,
    SegmentHeader,
    Superblock,
    pack_segment_header,
    slot_offset_bytes,
)
from vswapfs.hibernate import area, rest, resume, room, suspend, tiers
from vswapfs.hibernate.reader import ImageReader
from vswapfs.hibernate.snapshot import BusyError, NoRoomError
from vswapfs.host import hardening, memory, swap

PAGES = 700
Failures = dict[str, list[Exception | None]]


class FakeKernel:
    """Stands in for Snapshot; says what happened to it."""

    def __init__(self, fails: Failures) -> None:
        self.fails = fails
        self.calls: list[str] = []
        self.frozen = False
        self.pages = 0

    @contextlib.contextmanager
    def opened(self, *, to_restore: bool) -> Iterator["FakeKernel"]:
        assert not to_restore
        try:
            yield self
        finally:
            self.calls.append("close")
            self.frozen = False

    def _call(self, name: str) -> None:
        self.calls.append(name)
        failures = self.fails.get(name, [])
        if failures and (failure := failures.pop(0)):
            raise failure

    def set_swap_area(self, device: str) -> None:
        self._call("set_swap_area")

    def take_swap_slots(self) -> int:
        assert not self.frozen
        self._call("take_swap_slots")
        return 1

    def free_swap_bytes(self) -> int:
        return 0

    def freeze(self) -> None:
        self._call("freeze")
        self.frozen = True

    def prefer_image_bytes(self, size_bytes: int) -> None:
        assert self.frozen

    def create(self) -> bool:
        self._call("create")
        return True

    def read_into(self, pages: Sequence[memoryview]) -> int:
        self._call("read")
        count = min(len(pages), PAGES - self.pages)
        for page in pages[:count]:
            page[:8] = self.pages.to_bytes(8, "little")
            self.pages += 1
        return count * 4096

    def free(self) -> None:
        self._call("free")

    def thaw(self) -> None:
        self._call("thaw")
        self.frozen = False


@pytest.fixture
def backing(monkeypatch: pytest.MonkeyPatch) -> MemoryBacking:
    backing = MemoryBacking(32 << 20)

    @contextlib.contextmanager
    def opened(path: str, size_bytes: int | None = None) -> Iterator[MemoryBacking]:
        yield backing

    monkeypatch.setattr(area, "opened", opened)
    monkeypatch.setattr(swap, "active_areas", lambda: {"/dev/loop9": None})
    monkeypatch.setattr(suspend, "_protect", lambda: None)
    monkeypatch.setattr(suspend, "_await_idle", lambda device: None)
    monkeypatch.setattr(rest, "at_rest", lambda spared: contextlib.nullcontext([]))
    monkeypatch.setattr(room, "make", lambda needed, spill: None)
    return backing


def hibernate(
    monkeypatch: pytest.MonkeyPatch, fails: Failures, *, test: bool = True
) -> tuple[FakeKernel, list[str], VswapError | None]:
    kernel, said = FakeKernel(fails), list[str]()
    monkeypatch.setattr(suspend, "Snapshot", kernel)
    machine = suspend.Machine("/dev/loop9")
    try:
        suspend.hibernate("/dev/image", 32 << 20, machine, said.append, test=test)
    except VswapError as error:
        return kernel, said, error
    return kernel, said, None


def test_a_test_writes_a_whole_image_that_is_never_resumed(
    backing: MemoryBacking, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, _said, error = hibernate(monkeypatch, {})
    assert error is None
    reads = -(-PAGES // 256) + 1
    assert kernel.calls == [
        "set_swap_area", "take_swap_slots", "freeze", "create", *["read"] * reads, "free", "thaw",
        "close",
    ]  # fmt: skip
    reader = ImageReader(backing)
    assert reader.header.state is State.USED
    assert reader.header.image_bytes == PAGES * 4096
    assert reader.header.times_us[Step.COMPRESS] > 0
    reader.verify()
    with pytest.raises(ImageFormatError, match="used already"):
        reader.check_state(resume.kernel_name())


@pytest.mark.parametrize(
    "fails",
    [
        {"set_swap_area": [HostError("choose the swap area", "no")]},
        {"freeze": [BusyError("freeze the tasks", "busy")] * 3},
        {"create": [NoRoomError("create the image", "no memory")] * 3},
        {"create": [HostError("create the image", "a device does not suspend")]},
        {"read": [None, HostError("read", "broken")]},
        {"free": [HostError("free the image", "no")]},
    ],
    ids=lambda fails: str(*fails),
)
def test_after_any_failure_all_go_on(
    fails: Failures, backing: MemoryBacking, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, _said, error = hibernate(monkeypatch, fails)
    assert error is not None
    assert not kernel.frozen
    assert kernel.calls[-1] == "close"
    assert ImageReader(backing).header.state in (State.EMPTY, State.USED)


def test_busy_swap_is_told_what_to_do(
    backing: MemoryBacking, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails: Failures = {"freeze": [BusyError("freeze the tasks", "busy")] * 3}
    _kernel, said, error = hibernate(monkeypatch, fails)
    assert error is not None
    assert "in other cgroups" in error.remedy
    assert [text for text in said if "once more" in text] == [
        "freeze the tasks: busy: once more"
    ] * 2


def test_no_power_off_no_image(backing: MemoryBacking, monkeypatch: pytest.MonkeyPatch) -> None:
    def power_off() -> None:
        assert ImageReader(backing).header.state is State.READY
        raise HostError("power off", "refused")

    monkeypatch.setattr(suspend, "_power_off", power_off)
    kernel, _said, error = hibernate(monkeypatch, {}, test=False)
    assert error is not None
    assert error.message == "power off: refused"
    assert not kernel.frozen
    assert ImageReader(backing).header.state is State.EMPTY


def test_a_signal_comes_after_the_image_is_withdrawn(
    backing: MemoryBacking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its default is the end of the process: the machine goes on, and a boot would resume it."""
    states: list[State] = []

    def power_off() -> None:
        signal.raise_signal(signal.SIGTERM)
        assert ImageReader(backing).header.state is State.READY
        raise HostError("power off", "refused")

    monkeypatch.setattr(suspend, "_power_off", power_off)
    before = signal.signal(
        signal.SIGTERM, lambda *_: states.append(ImageReader(backing).header.state)
    )
    try:
        hibernate(monkeypatch, {}, test=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert states == [State.EMPTY]


def test_ctrl_z_does_not_stop_what_alone_can_thaw_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardening, "spare_from_oom_killer", lambda: None)
    monkeypatch.setattr(hardening, "lock_all_memory", lambda: True)
    before = signal.getsignal(signal.SIGTSTP)
    try:
        suspend._protect()
        assert signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTSTP, before)
        gc.enable()


def test_too_little_room_is_tried_again_with_more(
    backing: MemoryBacking, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(room, "make", lambda needed, spill: asked.append(needed))
    fails: Failures = {"create": [NoRoomError("create the image", "no memory"), None]}
    kernel, said, error = hibernate(monkeypatch, fails)
    assert error is None
    assert asked[0] < asked[1]
    assert kernel.calls.count("close") == 2
    assert any("once more" in text for text in said)


def test_an_old_image_is_gone_even_if_nothing_else_happens(
    backing: MemoryBacking, monkeypatch: pytest.MonkeyPatch
) -> None:
    hibernate(monkeypatch, {})
    hibernate(monkeypatch, {"freeze": [HostError("freeze", "no")]})
    assert ImageReader(backing).header.state is State.EMPTY


def test_other_swap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "active_areas", lambda: {"/dev/sda2": None})
    with pytest.raises(HostError, match="/dev/sda2 is active too"):
        suspend.hibernate("/dev/x", 1 << 30, suspend.Machine("/dev/loop0"), print, test=True)


def test_a_file_is_no_area(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(1 << 24))
    with (
        pytest.raises(HostError, match="not a block device"),
        area.opened(str(tmp_path / "image"), 1 << 24),
    ):
        pass
    with pytest.raises(HostError, match="No such file"), area.opened("/dev/none"):
        pass


def test_too_full_says_how_much_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "available_bytes", lambda: 100 << 20)
    spilled: list[int] = []
    with pytest.raises(HostError, match=r"300M must be available.* 100M are"):
        room.make(300 << 20, spilled.append)
    assert spilled == [200 << 20]


def test_a_tier_that_was_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "APPEAR_TIMEOUT_S", 0.3)
    path = tmp_path / "tier"
    superblock = Superblock(b"u" * 16, "vswap0", SEGMENT_MIN_BYTES, 3, 1, 1)
    data = bytearray(4 * SEGMENT_MIN_BYTES)
    data[:4096] = data[SUPERBLOCK_COPY_OFFSET : SUPERBLOCK_COPY_OFFSET + 4096] = superblock.pack()
    at = slot_offset_bytes(1, SEGMENT_MIN_BYTES)
    data[at : at + 64] = pack_segment_header(SegmentHeader(5, 1, 100, b"u" * 16, 77))
    path.write_bytes(data)
    found = tiers.look_at([str(path)])
    tiers.compare(found)
    data[at : at + 64] = pack_segment_header(SegmentHeader(6, 1, 100, b"u" * 16, 78))
    path.write_bytes(data)
    with pytest.raises(ImageFormatError, match="written after the snapshot"):
        tiers.compare(found)
    path.unlink()
    with pytest.raises(ImageFormatError, match="No such file"):
        tiers.compare(found)
    path.write_bytes(bytes(4 * SEGMENT_MIN_BYTES))
    with pytest.raises(ImageFormatError, match="not a tier"):
        tiers.compare(found)
    with pytest.raises(HostError, match="it is no block device"):
        tiers.refuse_files([str(path)])
    path.unlink()
    with pytest.raises(HostError, match="it is no block device"):
        tiers.refuse_files([str(path)])  # a tier may have gone, and its instance goes on


def test_a_tier_whose_disk_is_slow_to_appear_is_waited_for(tmp_path: Path) -> None:
    path, later = tmp_path / "tier", tmp_path / "later"
    data = bytearray(4 * SEGMENT_MIN_BYTES)
    data[:4096] = Superblock(b"u" * 16, "vswap0", SEGMENT_MIN_BYTES, 3, 1, 1).pack()
    path.write_bytes(data)
    found = tiers.look_at([str(path)])
    path.rename(later)
    appears = threading.Timer(0.3, later.rename, [path])
    appears.start()
    tiers.compare(found)
    appears.join()


@pytest.mark.parametrize(("slots", "size_mib"), [((1 << 42) - 1, 4), (4, 4), (3, 0)])
def test_a_tier_that_ends_before_its_slots_is_refused_at_once(
    tmp_path: Path, slots: int, size_mib: int
) -> None:
    path = tmp_path / "tier"
    superblock = Superblock(b"u" * 16, "vswap0", SEGMENT_MIN_BYTES, slots, 1, 1)
    path.write_bytes(superblock.pack())
    if size_mib:
        os.truncate(path, size_mib << 20)
    with pytest.raises(HostError, match="ends at byte"):
        tiers.look_at([str(path)])
