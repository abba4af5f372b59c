"""Prometheus' own tool takes the alert rules, and its engine computes them, our dashboard, and what
kube-proxy's dashboards and alerts ask for.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from docs.extensions import declared_metrics
from tests.capabilities import needs
from tests.support.tools import PROJECT, TOOLS, tool
from tests.unit.agent.metrics.test_kube_proxys_names import MIXIN, OTHERS, TARGET, exposition

pytestmark = needs(TOOLS)

FOLDER = PROJECT / "manifests/overlays/monitoring"
NODE = {"node": "node1", "instance": "node1:10249", "job": "kube-system/ebpf-lb"}
STALE = "kubeproxy_sync_proxy_rules_last_{}timestamp_seconds"
TWO_HOURS = "x120"


class Case(NamedTuple):
    """`ill`: series, labels and values by the minute, with which an alert fires; `well`: with which
    it does not. `at`: the moment that is looked at. `labels`: of the alert, beside the node's."""

    ill: list[tuple[str, dict[str, str], str]]
    well: list[tuple[str, dict[str, str], str]]
    at: str = "30m"
    labels: dict[str, str] = {}  # noqa: RUF012


BUILD = ("ebpf_lb_build_info", {"version": "1"}, f"1+0{TWO_HOURS}")
MAP = {"family": "ipv4", "map": "flows"}
CASES = {
    "EbpfLbCutOff": Case(
        [("ebpf_lb_api_server_cut_off_seconds", {}, f"0+60{TWO_HOURS}")],
        [("ebpf_lb_api_server_cut_off_seconds", {}, f"50+0{TWO_HOURS}")],
    ),
    "EbpfLbStaleRules": Case(
        [
            (STALE.format("queued_"), {"ip_family": "IPv4"}, f"1000+60{TWO_HOURS}"),
            (STALE.format(""), {"ip_family": "IPv4"}, f"1000+0{TWO_HOURS}"),
        ],
        [
            (STALE.format("queued_"), {"ip_family": "IPv4"}, f"1000+60{TWO_HOURS}"),
            (STALE.format(""), {"ip_family": "IPv4"}, f"1000+60{TWO_HOURS}"),
        ],
        labels={"ip_family": "IPv4"},
    ),
    "EbpfLbNotProgrammed": Case(
        [("ebpf_lb_not_programmed", {}, f"2+0{TWO_HOURS}")],
        [("ebpf_lb_not_programmed", {}, f"0 0 2 2 0+0{TWO_HOURS}")],
    ),
    "EbpfLbMapNearlyFull": Case(
        [
            ("ebpf_lb_map_entries", MAP, f"950+0{TWO_HOURS}"),
            ("ebpf_lb_map_capacity", MAP, f"1000+0{TWO_HOURS}"),
        ],
        [
            ("ebpf_lb_map_entries", MAP, f"890+0{TWO_HOURS}"),
            ("ebpf_lb_map_capacity", MAP, f"1000+0{TWO_HOURS}"),
        ],
        labels=MAP,
    ),
    "EbpfLbFlowsGiveWay": Case(
        [("ebpf_lb_conntrack_overflows_total", {"family": "ipv6"}, f"0+5{TWO_HOURS}")],
        [("ebpf_lb_conntrack_overflows_total", {"family": "ipv6"}, f"7+0{TWO_HOURS}")],
        labels={"family": "ipv6"},
    ),
    "EbpfLbHooksDisturbed": Case(
        [
            ("ebpf_lb_hook_problems", {}, f"1+0{TWO_HOURS}"),
            ("ebpf_lb_hooks_restored_total", {"hook": "tc"}, f"0+0{TWO_HOURS}"),
        ],
        [
            ("ebpf_lb_hook_problems", {}, f"0+0{TWO_HOURS}"),
            ("ebpf_lb_hooks_restored_total", {"hook": "tc"}, f"0 1 1+0{TWO_HOURS}"),
        ],
    ),
    "EbpfLbMapsChanged": Case(
        [("ebpf_lb_map_differences_total", {}, f"0 0 0 3+0{TWO_HOURS}")],
        [("ebpf_lb_map_differences_total", {}, f"3+0{TWO_HOURS}")],
    ),
    "EbpfLbDown": Case([], [BUILD]),
}


def rules() -> dict[str, Any]:
    _, rule = yaml.safe_load_all((FOLDER / "monitoring.yaml").read_text())
    spec: dict[str, Any] = rule["spec"]
    return spec


def alerts() -> dict[str, dict[str, Any]]:
    return {one["alert"]: one for group in rules()["groups"] for one in group["rules"]}


@pytest.fixture
def rule_file(tmp_path: Path) -> Path:
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps(rules()))
    return file


def written(name: str, labels: dict[str, str]) -> str:
    inside = ",".join(f"{label}={json.dumps(value)}" for label, value in labels.items())
    return f"{name}{{{inside}}}"


def judged(folder: Path, rule_files: list[Path], tests: list[dict[str, Any]]) -> str:
    file = folder / "tests.yaml"
    content = {"rule_files": [str(one) for one in rule_files], "tests": tests}
    file.write_text(json.dumps(content))
    return tool("promtool", "test", "rules", file)


def test_promtool_takes_the_rules(rule_file: Path) -> None:
    said = tool("promtool", "check", "rules", "--lint-fatal", rule_file)
    assert f"SUCCESS: {len(alerts())} rules found" in said


def test_every_alert_has_a_case() -> None:
    assert alerts().keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_when_it_should_and_not_else(
    name: str, rule_file: Path, tmp_path: Path
) -> None:
    case, alert = CASES[name], alerts()[name]
    labels = case.labels if name == "EbpfLbDown" else NODE | case.labels
    fires = {"exp_labels": alert["labels"] | labels, "exp_annotations": said(alert, labels)}
    both = [
        {
            "interval": "1m",
            "input_series": [
                {"series": written(metric, more | NODE), "values": values}
                for metric, more, values in series
            ],
            "alert_rule_test": [{"eval_time": case.at, "alertname": name, "exp_alerts": expected}],
        }
        for series, expected in ((case.ill, [fires]), (case.well, []))
    ]
    assert "SUCCESS" in judged(tmp_path, [rule_file], both)


def said(alert: dict[str, Any], labels: dict[str, str]) -> dict[str, str]:
    """What the annotations say with these labels."""
    return {
        key: re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels.get(found[1], ""), text)
        for key, text in alert["annotations"].items()
    }


def expressions() -> list[str]:
    """Of the dashboard, with its variables put in."""
    board = json.loads((FOLDER / "dashboard.json").read_text())
    found = [one["expr"] for panel in board["panels"] for one in panel.get("targets", ())]
    assert len(found) > 20
    values = {"$job": ".+", "$instance": ".+", "$__rate_interval": "5m"}
    for variable, value in values.items():
        found = [one.replace(variable, value) for one in found]
    return found


def ours() -> list[dict[str, str]]:
    """A series of each metric that an agent declares, which grows; all but the moment of the last
    sync, after which something else has come."""
    found = []
    for metric in declared_metrics.read(sorted((PROJECT / "ebpf_lb/agent").rglob("*.py"))):
        labels = dict.fromkeys(metric.labels, "x") | NODE
        if "verdict" in metric.labels:
            labels["verdict"] = "drop"
        growth = "1+0" if metric.name == STALE.format("") else "1+1"
        names = [(metric.name, labels)]
        if metric.kind == "histogram":
            names = [(f"{metric.name}_{end}", labels) for end in ("count", "sum")]
            names += [(f"{metric.name}_bucket", labels | {"le": le}) for le in ("0.1", "+Inf")]
        found += [
            {"series": written(name, each), "values": growth + TWO_HOURS} for name, each in names
        ]
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total"):
        found.append({"series": written(name, NODE), "values": "1+1" + TWO_HOURS})
    return found


def scraped() -> list[dict[str, str]]:
    """What an agent that has worked a little was asked for every minute."""
    return [
        {
            "series": written(sample.name, {**sample.labels, **TARGET}),
            "values": f"{sample.value:.6f}+{max(sample.value, 1):.6f}{TWO_HOURS}",
        }
        for family in text_string_to_metric_families(exposition())
        for sample in family.samples
        if sample.value == sample.value
    ]


def something(asked: list[str]) -> list[dict[str, Any]]:
    """Each of them is to have a result."""
    return [
        {
            "expr": f"count({one}) > bool 0",
            "eval_time": "60m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for one in asked
    ]


def test_the_dashboard_shows_something_everywhere(tmp_path: Path) -> None:
    asked = something(expressions())
    test = {"interval": "1m", "input_series": ours(), "promql_expr_test": asked}
    assert "SUCCESS" in judged(tmp_path, [], [test])


def test_the_dashboard_asks_for_nothing_that_there_is_not(tmp_path: Path) -> None:
    asked = something([*expressions(), "ebpf_lb_nothing"])
    test = {"interval": "1m", "input_series": ours(), "promql_expr_test": asked}
    with pytest.raises(AssertionError, match="ebpf_lb_nothing"):
        judged(tmp_path, [], [test])


def test_kube_proxys_dashboards_and_alerts_work_unchanged(tmp_path: Path) -> None:
    """The engine's own answer, over what an agent really serves. An alert's comparison is left out:
    it is to have no result while all is well."""
    target = ",".join(f'{label}="{value}"' for label, value in TARGET.items())
    asked = [re.sub(r" > \d+$", "", one.replace("$target", target)) for one in MIXIN + OTHERS]
    test = {"interval": "1m", "input_series": scraped(), "promql_expr_test": something(asked)}
    assert "SUCCESS" in judged(tmp_path, [], [test])
