"""metrics: what the client library's own parser makes of it, and who may listen."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from ctl.conftest import Vswapctl
from ctl.fake_daemon import TIERS, FakeDaemon, make_stats, make_status
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from vswapfs.core.stats import FIELDS, HISTOGRAMS, TIER_FIELDS, Kind
from vswapfs.errors import UsageError
from vswapfs.format.histogram import BUCKETS, bucket_of
from vswapfs.format.message import AskSample, Histogram, Sample

DASHBOARD = Path(__file__).parent.parent.parent / "docs/grafana.json"


def parsed(text: str) -> dict[str, Metric]:
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return {family.name: family for family in families}


def a_sample(name: str) -> Sample:
    stats = make_stats()
    counts = [0] * BUCKETS
    counts[bucket_of(5_000)], counts[bucket_of(90_000)], counts[-1] = 7, 2, 1
    stats.histograms["latency.load"] = Histogram(counts, 31_000_000)
    return Sample(1000.0, make_status(name, tiers=TIERS), stats)


def test_every_figure_is_there_with_its_type_and_unit(vswapctl: Vswapctl) -> None:
    with FakeDaemon("a", {AskSample: [a_sample("a")]}), FakeDaemon("b"):
        families = parsed(vswapctl("metrics").stdout)
    for number, field in enumerate(FIELDS):
        family = families[field.metric]
        assert family.type == field.kind.value
        assert family.documentation == field.help
        assert family.unit in ("", field.metric.rsplit("_", 1)[-1])
        assert [sample.labels for sample in family.samples] == [{"name": "a"}, {"name": "b"}]
        assert family.samples[0].value == pytest.approx(number * field.metric_scale)
        total = "_total" if field.kind is Kind.COUNTER else ""
        assert family.samples[0].name == field.metric + total
    (written, _) = families["vswapfs_tier_written_bytes"].samples
    assert written.labels == {"name": "a", "tier": TIERS[0].path}
    assert written.value == TIERS[0].written_bytes
    assert {field.metric for field in TIER_FIELDS} <= set(families)
    assert [s.value for s in families["vswapfs_tier_ok"].samples] == [1, 0]
    assert {s.labels["protection"]: s.value for s in families["vswapfs_protection_held"].samples}
    assert families["vswapfs_instance_info"].samples[0].labels["device"] == "/dev/loop3"


def test_histogram(vswapctl: Vswapctl) -> None:
    with FakeDaemon("a", {AskSample: [a_sample("a")]}):
        families = parsed(vswapctl("metrics", "a").stdout)
    assert {field.metric for field in HISTOGRAMS} <= set(families)
    family = families["vswapfs_latency_load_seconds"]
    assert family.type == "histogram"
    reached = {s.labels.get("le", s.name): s.value for s in family.samples}
    assert reached["vswapfs_latency_load_seconds_count"] == 10
    assert reached["vswapfs_latency_load_seconds_sum"] == 31
    bounds = [(float(bound), count) for bound, count in reached.items() if bound[0].isdigit()]
    assert max(count for bound, count in bounds if bound <= 4.2e-6) == 0
    assert min(count for bound, count in bounds if bound >= 8.1e-6) == 7
    assert min(count for bound, count in bounds if bound >= 132e-6) == 9


def test_a_dead_instance_is_not_up(vswapctl: Vswapctl) -> None:
    with FakeDaemon("gone"):
        pass
    with FakeDaemon("a"):
        result = vswapctl("metrics")
        named = vswapctl("metrics", "gone")
        nobody = vswapctl("metrics", "nobody")
    up = parsed(result.stdout)["vswapfs_up"]
    assert {s.labels["name"]: s.value for s in up.samples} == {"a": 1, "gone": 0}
    assert (named.exit_code, named.stdout) == (4, "")
    assert "gone is dead" in named.stderr
    assert (nobody.exit_code, nobody.stdout) == (4, "")


def test_no_instance_is_no_error(vswapctl: Vswapctl) -> None:
    result = vswapctl("metrics")
    assert result.exit_code == 0
    assert parsed(result.stdout)["vswapfs_up"].samples == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["0.0.0.0:9187"], "other machines may reach 0.0.0.0"),
        (["[::]:9187"], "other machines may reach ::"),
        (["192.168.1.5:9187"], "say --allow-remote"),
        (["127.0.0.1"], "ADDRESS:PORT"),
        (["127.0.0.1:0"], "ADDRESS:PORT"),
        (["127.0.0.1:65536"], "ADDRESS:PORT"),
        (["localhost:9187"], "ADDRESS:PORT in figures"),
        (["::1:9187"], r"write for example 127.0.0.1:9187 or [::1]:9187"),
        ([":9187"], "ADDRESS:PORT"),
    ],
)
def test_addresses_that_are_refused(vswapctl: Vswapctl, words: list[str], message: str) -> None:
    result = vswapctl("metrics", "--listen", *words)
    assert result.exit_code == UsageError.exit_code
    assert message in result.stderr


def test_allow_remote_alone(vswapctl: Vswapctl) -> None:
    assert vswapctl("metrics", "--allow-remote").exit_code == 2


def test_a_port_in_use(vswapctl: Vswapctl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = vswapctl("metrics", "--listen", f"127.0.0.1:{other.getsockname()[1]}")
    assert result.exit_code == 3
    assert "Address already in use" in result.stderr


@pytest.mark.parametrize("words", [["127.0.0.1:"], ["0.0.0.0:", "--allow-remote"], ["[::1]:"]])
def test_listener(run_directory: Path, words: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = f"""
from vswapfs.format import instance
instance.RUN_DIRECTORY = {str(run_directory)!r}
from vswapfs.ctl.cli import main
main()
"""
    listen = [words[0] + str(port), *words[1:]]
    command = [sys.executable, "-c", script, "metrics", "a", "--listen", *listen]
    with (
        FakeDaemon("a") as daemon,
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stderr
            assert process.stderr.readline() == f"http://{listen[0]}/metrics\n"
            url = f"http://{listen[0].replace('0.0.0.0', '127.0.0.1')}/metrics"
            for _ in range(2):
                assert "vswapfs_pages_zero" in parsed(scraped(url))
            assert len(daemon.requests) == 2, "each scrape asks the daemon, once"
            daemon.answers[AskSample] = [b""]
            assert parsed(scraped(url))["vswapfs_up"].samples[0].value == 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


def scraped(url: str) -> str:
    request = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert "openmetrics-text" in answer.headers["Content-Type"]
        text: str = answer.read().decode()
        return text


def test_dashboard_asks_for_metrics_that_there_are(vswapctl: Vswapctl) -> None:
    with FakeDaemon("a", {AskSample: [a_sample("a")]}):
        families = parsed(vswapctl("metrics").stdout)
    names = {sample.name for family in families.values() for sample in family.samples}
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 15
    for expression in expressions:
        asked = set(re.findall(r"vswapfs_\w+", expression))
        assert asked
        assert asked <= names, expression
        assert '{name="$name"' in expression
