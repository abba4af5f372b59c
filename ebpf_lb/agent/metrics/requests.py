"""Our requests to the API server, as client-go's metrics tell of them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Distribution(Protocol):
    """Values, counted up to bounds."""

    total: float

    def cumulative(self) -> Iterable[tuple[str, int]]:
        """Bound and how many are no greater, the last bound `+Inf`."""


class Requests(Protocol):
    """What is asked of `kube.requests.Requests` here; by verb and host."""

    @property
    def counts(self) -> Mapping[tuple[str, str, str], int]:
        """By code, method and host."""

    @property
    def durations_s(self) -> Mapping[tuple[str, str], Distribution]: ...
    @property
    def sent_bytes(self) -> Mapping[tuple[str, str], Distribution]: ...
    @property
    def received_bytes(self) -> Mapping[tuple[str, str], Distribution]: ...


class RequestCollector(Collector):
    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        requests = self._requests
        counts = CounterMetricFamily(
            "rest_client_requests",
            "Requests to the API server, by status, method and host.",
            labels=["code", "method", "host"],
        )
        for labels, count in dict(requests.counts).items():
            counts.add_metric(list(labels), count)
        yield counts
        durations = HistogramMetricFamily(
            "rest_client_request_duration_seconds",
            "Time until the answer to a request began.",
            labels=["verb", "host"],
        )
        sent = HistogramMetricFamily(
            "rest_client_request_size_bytes",
            "What was sent with a request.",
            labels=["verb", "host"],
        )
        received = HistogramMetricFamily(
            "rest_client_response_size_bytes",
            "The answer to a request; not of watches.",
            labels=["verb", "host"],
        )
        for metric, values in (
            (durations, requests.durations_s),
            (sent, requests.sent_bytes),
            (received, requests.received_bytes),
        ):
            for key, found in dict(values).items():
                metric.add_metric(list(key), list(found.cumulative()), found.total)
            yield metric
