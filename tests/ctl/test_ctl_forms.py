"""Forms of words of the command line, and the options of `on` and `vswapfs` made of them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from ctl.conftest import Vswapctl

from vswapfs.ctl import forms, launch
from vswapfs.ctl.mount import vswapfs
from vswapfs.errors import UsageError
from vswapfs.format.message import Config, Ready, TierConfig


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """What daemons are told that `on` starts."""
    told: list[Config] = []

    def start(config: Config, show: launch.Show) -> Ready:
        told.append(config)
        return Ready(config.mountpoint, "/dev/loop9")

    monkeypatch.setattr(launch, "start", start)
    return told


@pytest.mark.parametrize(
    ("text", "path", "size_bytes"),
    [
        ("/dev/sdb1:32G", "/dev/sdb1", 32 << 30),
        ("/dev/disk/by-path/pci-0000:00:1f.2:1.5G", "/dev/disk/by-path/pci-0000:00:1f.2", 3 << 29),
        ("/with space/./t:4096", "/with space/t", 4096),
    ],
)
def test_tier(text: str, path: str, size_bytes: int) -> None:
    assert forms.parse_tier(text) == TierConfig(path, size_bytes)


def test_tier_path_is_made_absolute_and_links_stay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("/dev/null")
    assert forms.parse_tier("link:1G").path == str(tmp_path / "link")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/dev/sdb1", "a tier is PATH:SIZE"),
        (":1G", "a tier is PATH:SIZE"),
        ("/dev/sdb1:", "'' is not a size"),
        ("/dev/pci-0000:00:1f", "'1f' is not a size"),
        ("/dev/sdb1:0", "'0' is too small"),
    ],
)
def test_tier_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        forms.parse_tier(text)
    assert repr(text) in caught.value.message
    assert said in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("path", ["/a\udcff", "/a\0b"])
def test_a_path_that_no_message_can_carry(path: str) -> None:
    """Bytes that are not UTF-8 come from the command line like that; a zero byte from a file."""
    with pytest.raises(UsageError, match="is not a path") as caught:
        forms.parse_tier(f"{path}:4M")
    assert caught.value.message.isprintable()


def test_a_path_that_no_table_can_show() -> None:
    with pytest.raises(UsageError, match="control character") as caught:
        forms.parse_tier("/a\nb:4M")
    assert caught.value.message.isprintable()


def test_a_path_from_a_directory_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UsageError, match="has been removed"):
        forms.parse_tier("tier:4M")


def test_mount_refuses_such_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.execv", lambda path, arguments: None)
    result = CliRunner().invoke(vswapfs, ["/m\udcff", "--size", "1G"])
    assert result.exit_code == 2
    assert "is not a path" in result.stderr


def test_budget() -> None:
    assert forms.parse_budget_bytes("20G/day") == forms.parse_budget_bytes("20gib/Day") == 20 << 30


@pytest.mark.parametrize("text", ["20G", "20G/hour", "/day", "0/day", "x/day", "20G/day/day", ""])
def test_budget_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a write budget is SIZE/day") as caught:
        forms.parse_budget_bytes(text)
    assert repr(text) in caught.value.message
    assert "20G/day" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), ("1D", 86400)]
)
def test_age(text: str, seconds: float) -> None:
    assert forms.parse_age_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "m", "-5m", "1.5h", "5 m", "1w", "\u0665m", "1" * 10 + "s"]
)
def test_age_refused(text: str) -> None:
    with pytest.raises(UsageError, match="an age is a whole number with s, m, h or d"):
        forms.parse_age_s(text)


# -- options ----------------------------------------------------------------------------------


def test_on_takes_tiers_in_order(vswapctl: Vswapctl, configs: list[Config]) -> None:
    tiers = ["--tier", "/b:2G", "--tier", "/a:1:1G", "--write-budget", "20G/day"]
    assert vswapctl("on", "--size", "8G", *tiers).exit_code == 0
    assert vswapctl("on", "--size", "8G", *tiers, "--tier-overwrite").exit_code == 0
    assert vswapctl("on", "--size", "8G").exit_code == 0
    plain, overwriting, without = configs
    assert plain.tiers == [TierConfig("/b", 2 << 30), TierConfig("/a:1", 1 << 30)]
    assert plain.write_budget_bytes_per_day == 20 << 30
    assert [tier.overwrite for tier in overwriting.tiers] == [True, True]
    assert (without.tiers, without.write_budget_bytes_per_day) == ([], None)


def test_mount_takes_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda path, arguments: became.append(arguments))
    monkeypatch.chdir(tmp_path)
    arguments = ["/m", "--size", "1G", "--tier", "t:2G", "--tier-overwrite"]
    result = CliRunner().invoke(vswapfs, [*arguments, "--write-budget", "1G/day"])
    assert result.exit_code == 0, result.output
    config = json.loads(became[0][-1])
    assert config["tiers"] == [
        {"path": str(tmp_path / "t"), "size_bytes": 2 << 30, "overwrite": True}
    ]
    assert config["write_budget_bytes_per_day"] == 1 << 30


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tier", "/b"], "'--tier': '/b' is not a tier"),
        (["--tier", "/a:1G", "--tier", "/b:x"], "'/b:x' is not a tier"),
        (["--write-budget", "20G"], "'--write-budget': '20G' is not a write budget"),
        (["--tier-overwrite"], "--tier-overwrite without a tier"),
    ],
)
def test_on_refuses(
    vswapctl: Vswapctl, configs: list[Config], arguments: list[str], said: str
) -> None:
    result = vswapctl("on", "--size", "8G", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not configs


def test_an_image_area_is_path_and_size() -> None:
    assert forms.parse_image("/dev/sda3:8G") == ("/dev/sda3", 8 << 30)
    for text in ("/dev/sda3", "/dev/sda3:", ":8G", "/dev/sda3:0"):
        with pytest.raises(UsageError, match=r"is not an image area|too small"):
            forms.parse_image(text)
