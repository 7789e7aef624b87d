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


def test_the_script_never_stops_the_boot(tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("IMAGE=/dev/none\nPYTHON=/bin/false\nPYTHONPATH=\n")
    script = (SCRIPTS / "local-premount").read_text().replace("/conf/vswapfs", f"{tmp_path}/conf")
    script = script.replace("sleep 1", "true")
    assert run("sh", "-c", script).returncode == 0
    assert run("sh", "-c", (SCRIPTS / "local-premount").read_text(), "x", "prereqs").stdout == ""
