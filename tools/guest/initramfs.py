"""The initramfs: a shell and the modules that it takes to mount the guest's files.

Owns its format (cpio, newc) and what is in it, and busybox in the cache.
"""

import re
import stat
import tempfile
from pathlib import Path
from typing import Final

from guest import debian
from guest.errors import host_command
from guest.image import CACHE, locked_cache
from guest.kernels import Kernel

_MODULES: Final = (
    "virtio_pci", "virtio_blk", "virtio_console", "ext4", "overlay", "fuse", "loop",
)  # fmt: skip
"""In this order; the kernel loads others itself, by modprobe, when they are asked for."""

_INIT: Final = Path(__file__).with_name("init.sh")
_SERVICE: Final = Path(__file__).with_name("guest-agent.service")


def build(kernel: Kernel, path: Path) -> None:
    entries: dict[str, bytes | None] = {  # contents of files, None for directories
        "bin/busybox": _busybox().read_bytes(),
        "init": _INIT.read_bytes(),
        _SERVICE.name: _SERVICE.read_bytes(),
    }
    for number, module in enumerate(_modules(kernel)):
        entries[f"modules/{number:02}-{module.name}"] = module.read_bytes()
    for directory in (
        "dev", "proc", "sys", "root", "disks/base", "disks/modules", "disks/checkout",
        "disks/writes",
    ):  # fmt: skip
        entries[directory] = None
    path.write_bytes(_cpio(entries))


def _busybox() -> Path:
    program = CACHE / "busybox"
    with locked_cache():
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="new-") as name:
                tree = debian.unpack("busybox-static", Path(name))
                (found,) = tree.glob("**/bin/busybox")
                found.rename(program)
    return program


def _modules(kernel: Kernel) -> list[Path]:
    """The files of the modules that are not built in, each after those that it needs."""
    files = {_name(path): path for path in kernel.modules.rglob("*.ko*")}
    ordered: list[Path] = []

    def add(name: str) -> None:
        path = files.get(name)
        if path is None or path in ordered:
            return  # built in, or in the list
        needs = host_command("modinfo", "-F", "depends", path, timeout_s=10).strip()
        for needed in filter(None, needs.split(",")):
            add(needed.replace("-", "_"))
        ordered.append(path)

    for module in _MODULES:
        add(module)
    return ordered


def _name(path: Path) -> str:
    return re.sub(r"\.ko.*", "", path.name).replace("-", "_")


def _cpio(entries: dict[str, bytes | None]) -> bytes:
    everything = dict.fromkeys(
        str(parent) for name in entries for parent in reversed(Path(name).parents)
    ) | dict(entries)
    everything.pop(".")
    archive = bytearray()
    for number, (name, contents) in enumerate([*everything.items(), ("TRAILER!!!", b"")]):
        mode = stat.S_IFDIR if contents is None else stat.S_IFREG
        data = contents or b""
        fields = (number, mode | 0o755, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + "".join(f"{field:08x}" for field in fields).encode()
        archive += name.encode() + b"\0"
        archive += bytes(-len(archive) % 4)
        archive += data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
