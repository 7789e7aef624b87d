"""Man pages and completions are what the code makes them, and the package installs them all."""

import re
import tomllib
from pathlib import Path

import manual
import pytest
from machine import ROOT, missing, run

from vswapfs.ctl.cli import cli


@pytest.mark.parametrize("path", manual.written(), ids=lambda path: path.name)
def test_file_is_what_the_code_makes_it(path: Path) -> None:
    assert path.read_text() == manual.written()[path], "run: .venv/bin/python tools/manual.py"


def test_every_command_and_option_is_in_a_page() -> None:
    text = (manual.MAN / "vswapctl.8").read_text().replace("\\-", "-")
    for name, command in cli.commands.items():
        assert f"\\fBvswapctl {name}" in text
        for param in command.params:
            if param.param_type_name == "option":
                assert param.opts[0] in text


def test_the_package_installs_everything() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        data = tomllib.load(file)["tool"]["setuptools"]["data-files"]
    installed = {source for sources in data.values() for source in sources}
    files = {*manual.written(), *(ROOT / "vswapfs/ctl/systemd").iterdir()}
    assert installed == {str(path.relative_to(ROOT)) for path in files}


@pytest.mark.parametrize("page", sorted(manual.MAN.glob("*.[58]")), ids=lambda path: path.name)
def test_pages_are_clean_troff(page: Path) -> None:
    if run("which", "groff").returncode:
        missing("no groff")
    result = run("groff", "-man", "-Tutf8", "-ww", "-z", page)
    complaints = [line for line in result.stderr.splitlines() if "cannot break" not in line]
    assert (result.returncode, complaints) == (0, [])


def test_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if run("which", "systemd-analyze").returncode:
        missing("no systemd-analyze")
    text = (ROOT / "vswapfs/ctl/systemd/vswapfs@.service").read_text()
    unit = tmp_path / "vswapfs@.service"
    unit.write_text(re.sub(r"(?m)(=-?)vswapctl", r"\1/bin/true", text))
    result = run("systemd-analyze", "verify", "--man=no", unit)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
