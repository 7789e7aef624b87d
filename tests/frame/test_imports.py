"""Who may import whom, and what the pure packages may not import at all."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import vswapfs

PACKAGE = Path(vswapfs.__file__).parent
MODULE_MAX_LINES = 450

# A room may import itself, errors and units, and what is listed here.
MAY_IMPORT = {
    "format": set(),
    "core": {"format"},
    "fuse": {"core", "format", "procfs"},
    "host": {"core", "format", "procfs"},
    "backing": {"format", "procfs"},
    "hibernate": {"backing", "format", "host", "procfs"},
    "ctl": {"format", "core.descriptor", "core.stats", "hibernate", "procfs"},
    "daemon": {"backing", "core", "format", "fuse", "host"},
}
COMMON = {"errors", "units", ""}

# The store and the formats are plain state machines: no I/O, clock, threads, randomness.
PURE = ("core", "format")
IMPURE_MODULES = {
    "asyncio", "ctypes", "io", "logging", "mmap", "multiprocessing", "os", "pathlib", "pyfuse3",
    "random", "secrets", "select", "socket", "subprocess", "threading", "time", "trio",
}  # fmt: skip

# The daemon must stay small: no command line or display library.
NOT_IN_THE_DAEMON = {"click", "matplotlib", "prometheus_client", "rich", "textual"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """The dotted names a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(dotted: str) -> str:
    """`vswapfs.core.store.Store` -> `core`; `vswapfs.errors.VswapError` -> `errors`."""
    parts = dotted.split(".")[1:]
    return parts[0] if parts and not parts[0].startswith("__") else ""


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_directions(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0] if path.parent != PACKAGE else ""
    for dotted in imports(path):
        if dotted.split(".")[0] != "vswapfs":
            if own in PURE:
                assert dotted.split(".")[0] not in IMPURE_MODULES, f"{path} imports {dotted}"
            if own != "ctl":
                assert dotted.split(".")[0] not in NOT_IN_THE_DAEMON, f"{path} imports {dotted}"
            continue
        target = room(dotted)
        if target in COMMON or target == own:
            continue
        allowed = MAY_IMPORT.get(own, set())
        exact = ".".join(dotted.split(".")[1:3])
        assert target in allowed or exact in allowed, f"{path} ({own}) imports {dotted}"


def test_every_room_is_in_the_table() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_owns(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
    assert len(path.read_text().splitlines()) <= MODULE_MAX_LINES
