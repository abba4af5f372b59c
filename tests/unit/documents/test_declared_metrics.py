"""Metrics as the sources declare them: what the site's page lists, and what the law asks for."""

import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from docs.extensions import declared_metrics, rules
from docs.extensions.declared_metrics import Metric, Unreadable
from ebpf_lb.agent.metrics.counters import Metrics

SOURCES = sorted((rules.ROOT / "ebpf_lb" / "agent").rglob("*.py"))


def declared() -> dict[str, Metric]:
    return {metric.name: metric for metric in declared_metrics.read(SOURCES)}


@pytest.mark.rule("ME-1")
def test_kube_proxys_names_are_served() -> None:
    law = rules.LAW.read_text().partition("{rule}`ME-1`")[2].partition("{rule}`ME-2`")[0]
    wanted = re.findall(r"`(kubeproxy_\w+)(?:\{(\w+)\})?`", law)
    assert len(wanted) >= 9
    found = declared()
    assert [name for name, _ in wanted if name not in found] == []
    assert [name for name, label in wanted if label and label not in found[name].labels] == []


def test_what_is_read_is_what_is_served() -> None:
    """Those that the agent counts itself, which need no kernel."""
    served = generate_latest(Metrics().registry).decode()
    found = declared()
    for family in text_string_to_metric_families(served):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert (found[name].kind, found[name].help) == (family.type, family.documentation)


@pytest.mark.parametrize(
    ("code", "metrics"),
    [
        ('Gauge("a", "A.")', [Metric("a", "gauge", (), "A.")]),
        ('Counter("a", "A.", ["x", "y"])', [Metric("a_total", "counter", ("x", "y"), "A.")]),
        (
            'labels = ["x"]\nGaugeMetricFamily("a", "A.", labels=labels)',
            [Metric("a", "gauge", ("x",), "A.")],
        ),
        (
            'prefix = "p_"\nHistogram(prefix + "a", "A.")',
            [Metric("p_a", "histogram", (), "A.")],
        ),
        (
            'for name in ("a", "b"):\n    Gauge(f"p_{name}", f"{name.capitalize()}s.")',
            [Metric("p_a", "gauge", (), "As."), Metric("p_b", "gauge", (), "Bs.")],
        ),
        ("import collections\ncollections.Counter()", []),
    ],
)
def test_how_they_are_read(tmp_path: Path, code: str, metrics: list[Metric]) -> None:
    file = tmp_path / "a.py"
    imports = "from prometheus_client import Counter, Gauge, Histogram\n"
    families = "from prometheus_client.core import GaugeMetricFamily\n"
    file.write_text(imports + families + code)
    assert declared_metrics.read([file]) == metrics


def test_one_that_is_not_written_down_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text('from prometheus_client import Gauge\nGauge(name_of(), "A.")\n')
    with pytest.raises(Unreadable, match=r"a\.py:2: name_of\(\)"):
        declared_metrics.read([file])
