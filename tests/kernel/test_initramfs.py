"""The initramfs hook: what it takes is all that resume needs, and not much more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from machine import missing, run

import vswapfs.hibernate

SCRIPTS = Path(vswapfs.hibernate.__file__).parent / "initramfs-tools"
MAX_BYTES = 40 << 20

# What the hook uses of /usr/share/initramfs-tools/hook-functions.
FUNCTIONS = """
copy_exec() {
    for file in "$1" $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        mkdir -p "$DESTDIR${file%/*}" && cp -L "$file" "$DESTDIR$file"
    done
}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An initramfs with nothing in it but what the hook took."""
    (tmp_path / "functions").write_text(FUNCTIONS)
    (tmp_path / "conf").write_text(f"IMAGE=/dev/image\nPYTHON={sys.executable}\n")
    hook = (SCRIPTS / "hook").read_text()
    hook = hook.replace("/usr/share/initramfs-tools/hook-functions", str(tmp_path / "functions"))
    hook = hook.replace("/etc/vswapfs/initramfs.conf", str(tmp_path / "conf"))
    tree = tmp_path / "tree"
    tree.mkdir()
    subprocess.run(["sh", "-c", hook], env={**os.environ, "DESTDIR": str(tree)}, check=True)
    return tree


def test_what_the_hook_takes_is_enough(tree: Path) -> None:
    if os.geteuid() != 0:
        missing("not root")
    settings = dict(line.split("=", 1) for line in (tree / "conf/vswapfs").read_text().splitlines())
    python = settings["PYTHON"].strip("'")
    environment = f"PYTHONPATH={settings['PYTHONPATH']}".replace("'", "")
    done = run(
        "env", environment, "chroot", tree, python, "-S", "-P", "-m", "vswapfs.hibernate",
        "/dev/image",
    )  # fmt: skip
    assert done.stderr == (
        "vswapfs: /dev/image: not resumed: open image area /dev/image: No such file or directory\n"
    )
    size_bytes = sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file())
    assert size_bytes < MAX_BYTES
    unwanted = ("click", "rich", "trio", "pyfuse3", "msgspec")
    assert not [path for name in unwanted for path in tree.rglob(name)]


@pytest.mark.parametrize(
    ("code", "words", "stops"),
    [(0, "", False), (7, "", False), (3, "", True), (1, "", True), (3, "quiet noresume", False)],
)
def test_the_boot_stops_only_where_an_image_may_be_left(
    tmp_path: Path, code: int, words: str, stops: bool
) -> None:
    """It would be resumed later, over file systems that have changed since."""
    (tmp_path / "python").write_text(f"#!/bin/sh\necho $*\nexit {code}\n")
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "conf").write_text(f"IMAGE=/dev/none\nPYTHON={tmp_path}/python\nPYTHONPATH=\n")
    (tmp_path / "cmdline").write_text(words)
    (tmp_path / "functions").write_text('panic() { echo "stopped: $1"; exit 0; }\n')
    script = (SCRIPTS / "local-premount").read_text().replace("sleep 1", "true")
    for there, here in (
        ("/conf/vswapfs", "conf"),
        ("/proc/cmdline", "cmdline"),
        ("/scripts/functions", "functions"),
    ):
        script = script.replace(there, str(tmp_path / here))
    done = run("sh", "-c", script)
    option = " noresume" if words else ""
    assert done.stdout.startswith(f"-S -P -m vswapfs.hibernate /dev/none{option}\n")
    assert ("stopped: vswapfs: whether /dev/none has" in done.stdout) == stops
    assert done.returncode == 0


def test_the_script_needs_nothing_before_it() -> None:
    assert run("sh", "-c", (SCRIPTS / "local-premount").read_text(), "x", "prereqs").stdout == ""
