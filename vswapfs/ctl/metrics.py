"""What `vswapctl metrics` prints and serves: the field table in OpenMetrics.

Owns the labels, and who may be listened to. Names, types and units are those of
core/stats.py; prometheus_client, imported only here, writes and serves them. Never keeps a figure:
each scrape asks the daemons.
"""

import ipaddress
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import click
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from vswapfs.core import stats
from vswapfs.core.stats import Field, Kind
from vswapfs.ctl import feed, instances, signals
from vswapfs.errors import HostError, InstanceError, UsageError
from vswapfs.format.histogram import BUCKETS, PER_DOUBLING, upper_us
from vswapfs.format.message import Histogram, Sample

Samples = Mapping[str, Sample | None]
"""By instance; None: it does not answer."""

_ADDRESS: Final = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<four>[^:]+)):(?P<port>\d{1,5})")
_RULE: Final = "an address to listen on is ADDRESS:PORT in figures"
_REMEDY: Final = "write for example 127.0.0.1:9187 or [::1]:9187"


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, allow_remote: bool) -> Address:
    """Read ADDRESS:PORT. Raises UsageError, also if others than this machine reach it."""
    found = _ADDRESS.fullmatch(text)
    try:
        if found is None or not 0 < int(found["port"]) < 65536:
            raise ValueError
        address = ipaddress.ip_address(found["six"] or found["four"])
    except ValueError:
        raise UsageError(f"{text!r}: {_RULE}", remedy=_REMEDY) from None
    if not address.is_loopback and not allow_remote:
        raise UsageError(
            f"{text!r}: other machines may reach {address}, and there is no password",
            remedy="listen on 127.0.0.1, or say --allow-remote",
        )
    return Address(str(address), int(found["port"]))


def families(samples: Samples) -> Iterator[Metric]:
    """All metrics of these instances, in the order of the field table."""
    present = {name: sample for name, sample in samples.items() if sample is not None}
    up = _family(stats.UP, ("name",))
    for name, sample in samples.items():
        up.add_metric((name,), float(sample is not None))
    yield up
    # Not of the type info, for which node_exporter's textfile collector refuses the whole file.
    info = GaugeMetricFamily(
        "vswapfs_instance_info",
        "what an instance is",
        labels=("name", "version", "device", "same_filled"),
    )
    for name, sample in present.items():
        status = sample.status
        info.add_metric((name, status.version, status.loop_device or "", status.same_filled), 1)
    yield info
    for field in stats.FIELDS:
        family = _family(field, ("name",))
        for name, sample in present.items():
            if (value := sample.stats.values.get(field.key)) is not None:
                family.add_metric((name,), value * field.metric_scale)
        yield family
    for field in stats.HISTOGRAMS:
        histogram_family = HistogramMetricFamily(
            field.metric, field.help, labels=("name",), unit=_unit(field)
        )
        for name, sample in present.items():
            if histogram := sample.stats.histograms.get(field.key):
                histogram_family.add_metric(
                    (name,), list(_buckets(histogram)), histogram.sum_us * field.metric_scale
                )
        yield histogram_family
    yield from _tier_families(present)
    held = _family(stats.PROTECTION_HELD, ("name", "protection"))
    for name, sample in present.items():
        for outcome in sample.status.hardening:
            held.add_metric((name, outcome.name), float(outcome.ok))
    yield held


def _tier_families(present: Mapping[str, Sample]) -> Iterator[Metric]:
    ok = _family(stats.TIER_OK, ("name", "tier"))
    tiers = [(name, tier) for name, sample in present.items() for tier in sample.status.tiers]
    for name, tier in tiers:
        ok.add_metric((name, tier.path), float(tier.state == "ok"))
    yield ok
    for field in stats.TIER_FIELDS:
        family = _family(field, ("name", "tier"))
        for name, tier in tiers:
            family.add_metric((name, tier.path), getattr(tier, field.key.removeprefix("tier.")))
        yield family


def _family(field: Field, labels: Iterable[str]) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if field.kind is Kind.COUNTER else GaugeMetricFamily
    return kind(field.metric, field.help, labels=list(labels), unit=_unit(field))


def _unit(field: Field) -> str:
    """The unit that the name ends with, or none."""
    last = field.metric.rsplit("_", 1)[-1]
    return last if last in ("bytes", "seconds", "ratio") else ""


def _buckets(histogram: Histogram) -> Iterator[tuple[str, float]]:
    """Ends of buckets in seconds, and how many took no longer: a bucket for each doubling."""
    reached = 0
    for bucket, count in enumerate(histogram.counts):
        reached += count
        if bucket == BUCKETS - 1:
            yield "+Inf", reached
        elif bucket % PER_DOUBLING == PER_DOUBLING - 1:
            yield f"{upper_us(bucket) / 1e6:g}", reached


class _Instances(Collector):
    """Asks the instance, or all, at each scrape."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    def collect(self) -> Iterator[Metric]:
        names = instances.names() if self._name is None else [self._name]
        yield from families({name: _sample(name) for name in names})


def _sample(name: str) -> Sample | None:
    try:
        return feed.ask_sample(name)
    except InstanceError:
        return None


def exposition(name: str | None) -> bytes:
    """OpenMetrics text about the instance, or all."""
    text: bytes = generate_latest(_registry(name))  # type: ignore[no-untyped-call]
    return text


def _registry(name: str | None) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Instances(name))
    return registry


def serve(address: Address, name: str | None) -> None:
    """Answer scrapes until SIGINT, SIGTERM or SIGHUP. Raises HostError if it cannot listen."""
    with signals.kept() as ending:
        try:
            server, thread = start_http_server(address.port, address.host, _registry(name))
        except OSError as error:
            raise HostError(
                f"listen on {address}", error.strerror or str(error), remedy="choose another port"
            ) from None
        click.echo(f"http://{address}/metrics", err=True)
        signal.sigwait(ending)
        server.shutdown()
        thread.join()
        server.server_close()
