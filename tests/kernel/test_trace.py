"""trace beside a workload: it shows what happens, and ends with its client."""

import json
import signal
import subprocess
from pathlib import Path

from machine import VSWAPCTL, ctl, swap_instance, wait_until
from workloads import workload

MIB = 1 << 20
NAME = "ttrace"


def is_on(client: "subprocess.Popen[str]") -> bool:
    """Wait for its first line on stderr, which tells; False if it was refused."""
    assert client.stderr
    line = client.stderr.readline()
    assert line == f"tracing {NAME}; Ctrl-C ends it\n" or "somebody traces already" in line, line
    return line.startswith("tracing")


def test_a_workload_is_seen_and_the_end_of_the_client_ends_it(tmp_path: Path) -> None:
    options = ("--size", "256M", "--pool-limit", "24M", "--tier", f"{tmp_path}/tier:128M")
    with swap_instance(NAME, *options) as instance:
        output = tmp_path / "events"
        with (
            output.open("w") as file,
            subprocess.Popen(
                [VSWAPCTL, "trace", NAME, "--json"], stdout=file, stderr=subprocess.PIPE, text=True
            ) as client,
        ):
            assert is_on(client)
            second = ctl("trace", NAME)
            assert "somebody traces already" in second.stderr
            assert workload(32 * MIB, "96M", "text:2,random:1,same:1", 2_000)["mismatch_count"] == 0
            client.send_signal(signal.SIGINT)
            _, errors = client.communicate(timeout=20)
        assert client.returncode == 0, errors
        events = [json.loads(line) for line in output.read_text().splitlines()]
        kinds = {event["event"] for event in events}
        assert {"load", "store", "writeback"} <= kinds
        assert all(event["us"] > 0 for event in events)
        times = [event["at_s"] for event in events]
        assert times == sorted(times)
        stored = [event for event in events if event["event"] == "store" and "states" in event]
        assert {state for event in stored for state in event["states"]} >= {"same", "pool"}

        def is_over() -> bool:
            with subprocess.Popen(
                [VSWAPCTL, "trace", NAME, "--slot", "0-1M"],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            ) as another:  # fmt: skip
                began = is_on(another)
                another.send_signal(signal.SIGINT)
                return began

        wait_until("the daemon notices that the client is gone", is_over)
        beyond = ctl("trace", NAME, "--slot", "1G")
        assert beyond.returncode == 2
        assert "nothing of it is in the area" in beyond.stderr
        instance.assert_healthy()
