"""The files of a guest: what it needs of the host, and the checkout, each as a read-only image.

Owns the cache `.vm` in the checkout. Copies no file of the host but those of named Debian packages,
the Python of `.venv`, and what `_ETC` lists. Always holds: `base.ext4` is what `base.key` was
computed of, and paths in the guest are those of the host, because a virtual environment has its
own path written into it.

Images and not a shared directory: a disk is still there after a resume from hibernation, and a
kernel short of memory reads it without help of another driver's.
"""

import compileall
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from guest.errors import GuestUnavailableError, host_command

CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent
CACHE: Final = CHECKOUT / ".vm"

_PACKAGES: Final = ("e2fsprogs", "fuse3", "kmod", "mount", "procps", "systemd", "util-linux")
"""Beside the essential ones; with all that they depend on. What is not installed is left out."""

_ETC: Final = (
    "alternatives", "fuse.conf", "group", "ld.so.cache", "nsswitch.conf", "passwd",
)  # fmt: skip
_NOT_NEEDED: Final = re.compile(r"/usr/share/(doc|man|locale|info|lintian|bug)/")
_NOT_NEEDED_OF_PYTHON: Final = {"site-packages", "test", "idlelib", "ensurepip"}
_NOT_NEEDED_OF_CHECKOUT: Final = (
    ".git", ".venv", ".vm", ".fuzz", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis",
)  # fmt: skip
_EMPTY: Final = ("dev", "mnt", "proc", "root", "run", "sys", "tmp", "var/tmp")
_LINKS: Final = ("bin", "lib", "lib64", "sbin")
_TIMEOUT_S: Final = 120


@contextlib.contextmanager
def locked_cache() -> Iterator[None]:
    """Two that make the same thing at the same time must not: the second finds it made."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def work_directory() -> tempfile.TemporaryDirectory[str]:
    """A directory that goes with its `with`; and those go of processes that were killed."""
    with locked_cache():
        for left in CACHE.glob("run-*"):
            if not Path("/proc", left.name.split("-")[1]).exists():
                shutil.rmtree(left)
        return tempfile.TemporaryDirectory(dir=CACHE, prefix=f"run-{os.getpid()}-")


def make_image(tree: Path, image: Path) -> None:
    """Write a tree as an ext4 file system that has no room for more."""
    used_bytes = sum(-(-entry.lstat().st_size // 4096) * 4096 + 1024 for entry in tree.rglob("*"))
    size_kib = used_bytes * 5 // 4 // 1024 + 8192
    host_command(
        "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-i", "4096",
        "-d", tree, image, f"{size_kib}k", timeout_s=_TIMEOUT_S,
    )  # fmt: skip


def base_image(link: Path) -> None:
    """The files of the host, made anew when one of them has changed; as a link that keeps them."""
    image, key_file = CACHE / "base.ext4", CACHE / "base.key"
    with locked_cache():
        python, others = _files_of_python(), _files_of_packages()
        key = _key_of(python | others)
        if not image.exists() or not key_file.exists() or key_file.read_text() != key:
            binaries = [CHECKOUT / ".venv/bin/python", *(p for p in python if ".so" in p.suffixes)]
            needed = {link for path in libraries(binaries) for link in _with_targets(path)}
            _make_base_image(python | others | needed, image)
            key_file.write_text(key)
        os.link(image, link)


def _make_base_image(paths: set[Path], image: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="new-") as name:
        tree = Path(name, "tree")
        for directory in _EMPTY:
            (tree / directory).mkdir(parents=True)
        _copy(paths, tree)
        new = Path(name, "base.ext4")
        make_image(tree, new)
        new.rename(image)


def checkout_image(image: Path) -> None:
    """The checkout as it is now, at its path; compiled, which takes long under emulation."""
    for tree in ("vswapfs", "tools"):
        compileall.compile_dir(CHECKOUT / tree, quiet=1)
    with tempfile.TemporaryDirectory(dir=image.parent, prefix="new-") as name:
        copy = Path(name, *CHECKOUT.parts[1:])
        copy.parent.mkdir(parents=True)
        unwanted = shutil.ignore_patterns(*_NOT_NEEDED_OF_CHECKOUT)
        shutil.copytree(CHECKOUT, copy, symlinks=True, ignore=unwanted)
        make_image(Path(name), image)


def libraries(files: Iterable[Path]) -> set[Path]:
    """The shared libraries that programs and libraries need, their loader included."""
    found = host_command("sh", "-c", 'ldd "$@" 2>/dev/null || true', "sh", *files,
                         timeout_s=_TIMEOUT_S)  # fmt: skip
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", found)}


def _files_of_python() -> set[Path]:
    venv = CHECKOUT / ".venv"
    python = venv / "bin/python"
    if not python.exists():
        raise GuestUnavailableError(f"no guest: no {python}; run tools/setup")
    files = {*_files_below(venv, skip=set()), *_with_targets(python)}
    for tree in {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}:
        files.update(_files_below(Path(tree), skip=_NOT_NEEDED_OF_PYTHON))
    return files


def _files_of_packages() -> set[Path]:
    """Of Debian's packages, and what belongs to none."""
    wanted = _package_files() | {Path("/usr/bin/awk")}
    wanted.update(Path("/etc", name) for name in _ETC)
    wanted.update(_files_below(Path("/etc/alternatives"), skip=set()))
    wanted.update(Path("/", name) for name in _LINKS if Path("/", name).is_symlink())
    return {link for path in wanted for link in _with_targets(path)}


def _files_below(top: Path, skip: set[str]) -> Iterator[Path]:
    for directory, names, files in os.walk(top):
        names[:] = [name for name in names if name not in skip]
        here = Path(directory)
        yield from (here / name for name in files)
        yield from (here / name for name in names if (here / name).is_symlink())


def _with_targets(path: Path) -> Iterator[Path]:
    """The file, by the path that has no link in its directories; and what it links to."""
    for _ in range(16):
        path = path.parent.resolve() / path.name
        try:
            mode = path.lstat().st_mode
        except OSError:  # a package's file that was removed, a link to nowhere
            return
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            yield path
        if not stat.S_ISLNK(mode):
            return
        path = path.parent / path.readlink()


def _package_files() -> set[Path]:
    form = "${Package}\t${Essential}\t${Provides}\t${Pre-Depends},${Depends}\n"
    needs: dict[str, list[str]] = {}
    provider: dict[str, str] = {}
    wanted = list(_PACKAGES)
    for line in host_command("dpkg-query", "-W", f"-f={form}", timeout_s=_TIMEOUT_S).splitlines():
        package, essential, provides, depends = line.split("\t")
        needs[package] = _names(depends)
        provider.update(dict.fromkeys(_names(provides), package))
        if essential == "yes":
            wanted.append(package)
    chosen: set[str] = set()
    while wanted:
        name = wanted.pop()
        package = name if name in needs else provider.get(name, "")
        if package and package not in chosen:
            chosen.add(package)
            wanted += needs[package]
    lines = host_command("dpkg-query", "-L", *sorted(chosen), timeout_s=_TIMEOUT_S).splitlines()
    return {Path(line) for line in lines if line[:1] == "/" and not _NOT_NEEDED.match(line)}


def _names(relation: str) -> list[str]:
    """The packages of `a (>= 1) | b:any, c`; all alternatives, of which only some are installed."""
    return re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]*)", relation)


def _key_of(paths: set[Path]) -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(paths):
        found = path.lstat()
        digest.update(f"{path}\0{found.st_mode}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _copy(paths: set[Path], tree: Path) -> None:
    listed = "".join(f".{path}\0" for path in sorted(paths))
    host_command(
        "sh", "-c", 'tar -C / --null --no-recursion -T - -cf - | tar -C "$1" -xf -', "sh", tree,
        timeout_s=_TIMEOUT_S, stdin=listed,
    )  # fmt: skip
