"""top in a real terminal, over an instance that the kernel swaps to."""

import json
import re
import threading
from pathlib import Path

from machine import VSWAPCTL, ctl, ctl_ok, require_survival, swap_instance
from terminal import Terminal, terminal
from workloads import held_memory, workload

KEYS = re.compile(r"q Quit +space Pause +\+ Slower +- Faster +i Instance +h Help")


def assert_clean(opened: Terminal, before: dict[str, str], settings: str) -> None:
    """As it was before the command."""
    opened.wait_for("ready>")
    assert opened.modes() == before
    opened.run("clear; stty -g | md5sum")
    assert settings in opened.wait_for(settings)


def test_top_shows_the_workload_obeys_its_keys_and_leaves_the_terminal_clean() -> None:
    with terminal(120, 40) as opened, swap_instance("ttop", "--size", "512M"):
        before = opened.modes()
        opened.run("stty -g | md5sum")
        (settings,) = re.findall(r"[0-9a-f]{32}", opened.wait_for("  -\n"))
        opened.run(f"clear; {VSWAPCTL} top ttop --interval 0.5")
        assert KEYS.search(opened.wait_for("h Help"))
        assert opened.modes()["alternate_on"] == "1"
        running = threading.Thread(
            target=workload, args=(48 << 20, "160M", "same:1,text:4,random:1", 20_000)
        )
        running.start()
        try:
            opened.wait_for("saved")
            shown = busy(opened)
            assert "ttop  running" in shown
            opened.resize(80, 24)
            opened.wait_for("h Help")
            lines = opened.lines()
            assert lines[0].startswith("ttop  running")
            assert KEYS.search(lines[23])
            assert max(map(len, lines)) <= 80
            for label in ("area", "traffic", "latency", "pool", "cleaner", "disk", "memory"):
                assert [line for line in lines if line.startswith(label)]
        finally:
            running.join()
        opened.press("+")
        opened.wait_for("every 1s")
        opened.press("Space")
        opened.wait_for("PAUSED")
        opened.press("h")
        opened.wait_for("All figures, with their meaning: vswapctl stats")
        opened.press("h")
        opened.wait_for("PAUSED")
        opened.press("q")
        assert_clean(opened, before, settings)


def busy(opened: Terminal) -> str:
    """Wait until stores and loads have a rate; returns the screen."""
    for verb in ("stores", "loads"):
        line = re.compile(rf"^ +{verb} +[\d.]+M/s +[\d,]+ .*[▂▃▄▅▆▇█]", re.MULTILINE)
        for _ in range(200):
            if line.search(opened.text()):
                break
            threading.Event().wait(0.1)
        else:
            raise AssertionError(f"no {verb}:\n{opened.text()}")
    assert re.search(r"^ +load +[\d.]+[um]s ", opened.text(), re.MULTILINE)
    return opened.text()


def test_top_goes_on_when_the_daemon_ends_and_comes_back() -> None:
    require_survival()
    with terminal(80, 24) as opened:
        with swap_instance("ttop", "--size", "64M"):
            before = opened.modes()
            opened.run("stty -g | md5sum")
            (settings,) = re.findall(r"[0-9a-f]{32}", opened.wait_for("  -\n"))
            opened.run(f"clear; {VSWAPCTL} top ttop --interval 0.2")
            opened.wait_for("ttop  running")
            ctl_ok("restart", "ttop")
            opened.wait_for("ttop  running")
        opened.wait_for("! no such instance: ttop")
        with swap_instance("ttop", "--size", "128M") as instance:
            opened.wait_for(f"worker {instance.pid}")
            assert "of 128M" in opened.wait_for("of 128M")
            assert "! " not in opened.text()
        opened.press("C-c")
        assert_clean(opened, before, settings)


def test_recording_metrics_and_commands_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "held.rec"
    with (
        swap_instance("ttop", "--size", "512M") as instance,
        held_memory(48 << 20, "128M", "same:1,text:2,random:1"),
    ):
        result = ctl("record", "ttop", str(path), "--count", "2", "--interval", "0.2")
        assert result.returncode == 0, result.stderr
        stats, status = instance.stats(), instance.status()
        text = ctl_ok("metrics", "ttop")
    first, last = (json.loads(line) for line in ctl_ok("replay", str(path), "--json").splitlines())
    assert last["unix_s"] > first["unix_s"]
    assert last["stats"]["pages"] == stats["pages"]
    assert last["stats"]["area"]["swap_used_bytes"] == status["swap_used_bytes"]
    assert last["status"]["ratio"] == stats["pool"]["ratio"] == last["stats"]["pool"]["ratio"]
    for state, pages in stats["pages"].items():
        if not state.endswith("_total"):
            assert f'vswapfs_pages_{state}{{name="ttop"}} {float(pages)}\n' in text
    assert sum(last["histograms"]["latency.store"]["counts"]) > 0
    assert stats["latency"]["store_p50_us"] > 0
