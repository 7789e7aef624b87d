"""Names that anybody may give to files and mounts, in what the kernel tells of all of them."""

from pathlib import Path

import pytest

from vswapfs import procfs
from vswapfs.format import swaps
from vswapfs.fuse import mount

ODD = b"/tmp/\xff\x0c\r\x1c\xe2\x80\xa8"
"""What ends a line, or is white space, for str.splitlines and str.split."""


def test_mounts_are_found_among_odd_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_bytes(
        b"30 1 0:50 / " + ODD + b" rw shared:1 - fuse.odd " + ODD + b" rw\n"
        b"31 1 0:51 / /run/vswapfs/a\\040b rw,nosuid shared:2 - fuse.vswapfs vswapfs-ab rw\n"
    )
    monkeypatch.setattr(mount, "_MOUNTINFO", tmp_path / "mountinfo")
    assert mount.find("ab") == ("/run/vswapfs/a b", 51)
    assert mount.is_mountpoint("/run/vswapfs/a b")
    assert not mount.is_mountpoint("/nowhere")


def test_swap_areas_are_found_among_odd_ones(tmp_path: Path) -> None:
    path = tmp_path / "swaps"
    path.write_bytes(
        b"Filename\tType\tSize\tUsed\tPriority\n" + ODD + b"  file\t8\t4\t-2\n"
        b"/dev/loop3  partition\t1024\t512\t-3\n"
    )
    areas = swaps.parse(procfs.lines(path))
    assert areas["/dev/loop3"].used_bytes == 512 << 10
    assert len(areas) == 2


def test_an_empty_file_has_no_line(tmp_path: Path) -> None:
    (tmp_path / "cgroup").touch()
    assert procfs.lines(tmp_path / "cgroup") == []


def test_what_is_shown_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / "comm").write_bytes(b"a\xff\xc3\xa4\n")
    name = procfs.printable(procfs.text(tmp_path / "comm"))
    assert name.encode() == "a\ufffd\xe4\n".encode()
