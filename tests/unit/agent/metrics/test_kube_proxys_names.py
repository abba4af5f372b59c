"""Dashboards and alerts that were made for kube-proxy find what they ask for.

Their expressions are kept as they are written there, but for the variables: each selector in them
must choose a series of ours, by name and labels.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ebpf_lb.agent.metrics import process
from ebpf_lb.agent.metrics.parts import ProbeCollector, ProgrammerCollector
from ebpf_lb.agent.metrics.requests import RequestCollector
from ebpf_lb.kube.requests import NO_ANSWER, Requests
from ebpf_lb.kube.resources import SERVICES
from ebpf_lb.kube.watch import Changed
from tests.unit.agent.fakes import Agent
from tests.unit.agent.test_loop import WEB, lists, web

# what a scrape adds
TARGET = {"cluster": "c", "job": "kube-proxy", "instance": "node1:10249"}
MIXIN = [  # kubernetes-mixin's dashboard "Kubernetes / Proxy"
    "sum(rate(kubeproxy_sync_proxy_rules_duration_seconds_count{$target}[5m]))",
    "histogram_quantile(0.99,rate(kubeproxy_sync_proxy_rules_duration_seconds_bucket{$target}[5m]))",
    "sum(rate(kubeproxy_network_programming_duration_seconds_count{$target}[5m]))",
    "histogram_quantile(0.99, sum(rate(kubeproxy_network_programming_duration_seconds_bucket"
    "{$target}[5m])) by (instance, le))",
    'sum(rate(rest_client_requests_total{$target,code=~"2.."}[5m]))',
    'sum(rate(rest_client_requests_total{$target,code=~"4.."}[5m]))',
    "histogram_quantile(0.99, sum(rate(rest_client_request_duration_seconds_bucket"
    '{$target,verb="POST"}[5m])) by (verb, le))',
    "histogram_quantile(0.99, sum(rate(rest_client_request_duration_seconds_bucket"
    '{$target,verb="GET"}[5m])) by (verb, le))',
    "process_resident_memory_bytes{$target}",
    "rate(process_cpu_seconds_total{$target}[5m])",
    "go_goroutines{$target}",
]
OTHERS = [
    'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{$target,ip_family="IPv4"}'
    ' - kubeproxy_sync_proxy_rules_last_timestamp_seconds{$target,ip_family="IPv4"} > 60',
    'time() - kubeproxy_sync_proxy_rules_last_timestamp_seconds{$target,ip_family="IPv6"}',
    'sum by (code) (rate(kubeproxy_proxy_healthz_total{$target,code="503"}[5m]))',
    'sum by (code) (rate(kubeproxy_proxy_livez_total{$target,code="200"}[5m]))',
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending{$target}",
    "rate(kubeproxy_sync_proxy_rules_endpoint_changes_total{$target}[5m])",
    "kubeproxy_sync_proxy_rules_service_changes_pending{$target}",
    "rate(kubeproxy_sync_proxy_rules_service_changes_total{$target}[5m])",
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
    '{$target,traffic_policy="external",ip_family="IPv6"}',
    'rate(kubeproxy_sync_full_proxy_rules_duration_seconds_count{$target,ip_family="IPv4"}[5m])',
    'rate(kubeproxy_sync_partial_proxy_rules_duration_seconds_sum{$target,ip_family="IPv6"}[5m])',
    'rate(rest_client_response_size_bytes_sum{$target,verb="GET",host="api:6443"}[5m])',
    'rate(rest_client_request_size_bytes_sum{$target,verb="POST"}[5m])',
    'sum(rate(rest_client_requests_total{$target,code="<error>",method="GET"}[5m]))',
    "process_open_fds{$target} / process_max_fds{$target}",
    "time() - process_start_time_seconds{$target}",
    "process_virtual_memory_bytes{$target}",
    'count by (git_version) (kubernetes_build_info{$target,major=~".+",platform=~"linux/.+"})',
]
SELECTOR = re.compile(r"([a-z_:][a-z0-9_:]*)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')


class Selector(NamedTuple):
    name: str
    matchers: list[tuple[str, str, str]]

    def chooses(self, name: str, labels: dict[str, str]) -> bool:
        return name == self.name and all(
            re.fullmatch(wanted, labels.get(label, "")) is not None
            if how == "=~"
            else labels.get(label, "") == wanted
            for label, how, wanted in self.matchers
        )


def selectors(expression: str) -> Iterator[Selector]:
    target = ",".join(f'{label}="{value}"' for label, value in TARGET.items())
    for name, matchers in SELECTOR.findall(expression.replace("$target", target)):
        yield Selector(name, MATCHER.findall(matchers))


def exposition() -> str:
    """A scrape of an agent that has worked a little."""
    agent = Agent()
    agent.tell(*lists(web()))
    requests = Requests()
    requests.made("GET", "api:6443", "200", 0.2, 0)
    requests.made("GET", "api:6443", "404", 0.01, 0)
    requests.made("GET", "api:6443", NO_ANSWER, 5.0, 0)
    requests.made("POST", "api:6443", "201", 0.1, 900)
    requests.received("GET", "api:6443", 5000)
    registry = agent.metrics.registry
    registry.register(RequestCollector(requests))
    registry.register(ProbeCollector({("livez", 200): 3}))
    registry.register(ProgrammerCollector(agent.programmer, "1.2.3", "abc"))
    process.register(registry, "1.2.3")
    return agent.metrics.page().decode()


@pytest.fixture(scope="module")
def series() -> list[tuple[str, dict[str, str]]]:
    return [
        (sample.name, {**sample.labels, **TARGET})
        for family in text_string_to_metric_families(exposition())
        for sample in family.samples
    ]


@pytest.mark.parametrize("expression", MIXIN + OTHERS)
def test_every_selector_of_an_expression_finds_something(
    expression: str, series: list[tuple[str, dict[str, str]]]
) -> None:
    found = list(selectors(expression))
    assert found
    for selector in found:
        assert any(selector.chooses(*one) for one in series), selector


def test_a_selector_that_finds_nothing_is_noticed(
    series: list[tuple[str, dict[str, str]]],
) -> None:
    for expression in ("kubeproxy_nothing{$target}", 'go_goroutines{$target,ip_family="IPv4"}'):
        [selector] = selectors(expression)
        assert not any(selector.chooses(*one) for one in series)


def test_distributions_are_cumulative() -> None:
    requests = Requests()
    for seconds in (0.001, 0.005, 0.006, 3.0, 100.0):
        requests.made("GET", "api", "200", seconds, 0)
    found = dict(requests.durations_s["GET", "api"].cumulative())
    assert (found["0.005"], found["0.025"], found["4.0"], found["60.0"], found["+Inf"]) == (
        2, 3, 4, 4, 5
    )  # fmt: skip


def lag(agent: Agent) -> float:
    """What the alert on stale rules asks for."""
    prefix, labels = "kubeproxy_sync_proxy_rules_last_", {"ip_family": "IPv6"}
    queued, last = (
        agent.metrics.registry.get_sample_value(f"{prefix}{name}timestamp_seconds", labels)
        for name in ("queued_", "")
    )
    assert queued is not None and last is not None
    return queued - last


def test_the_alert_on_stale_rules_does_not_fire_for_what_changes_nothing() -> None:
    agent = Agent()
    agent.tell(*lists(web()))
    assert lag(agent) <= 0
    agent.second(100)
    agent.tell(Changed(SERVICES, web(), WEB))  # another resourceVersion, and nothing else
    assert lag(agent) <= 0


def test_but_it_does_while_the_maps_do_not_follow() -> None:
    agent = Agent()
    agent.tell(*lists(web())[:2])
    agent.second(100)
    agent.tell(Changed(SERVICES, web(), WEB))
    assert lag(agent) > 60  # seconds since 1970 against never
