"""Tables as kubectl prints them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ebpf_lb.apiserver.kinds import ENDPOINT_SLICE, KINDS, POD, SERVICE, Kind
from ebpf_lb.apiserver.store import Stored
from ebpf_lb.apiserver.table import human_age, table
from ebpf_lb.lab.objects import text


def render(kind: Kind, objects: list[dict[str, Any]], *, namespaces: bool, wide: bool) -> str:
    """From objects to what `lab get` prints."""
    made = table(kind, [Stored(kind, object_) for object_ in objects], {}, "Metadata")
    return text.render(made, namespaces=namespaces, wide=wide)


def metadata(name: str) -> dict[str, Any]:
    created = datetime.now(UTC) - timedelta(minutes=30)
    return {
        "name": name,
        "namespace": "default",
        "creationTimestamp": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (11_400, "3h10m"),
        (8 * 3600 + 60, "8h"),
        (49 * 3600, "2d1h"),
        (12 * 86_400 + 5, "12d"),
    ],
)
def test_ages(seconds: int, text: str) -> None:
    assert human_age(seconds) == text


def test_services() -> None:
    web = {
        "metadata": metadata("web"),
        "spec": {
            "type": "NodePort",
            "clusterIPs": ["10.96.0.7", "fd00::7"],
            "ports": [
                {"port": 80, "protocol": "TCP", "nodePort": 30080},
                {"port": 53, "protocol": "UDP"},
            ],
            "selector": {"b": "2", "a": "1"},
        },
    }
    pending = {
        "metadata": metadata("a-longer-name"),
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.8"], "ports": []},
    }
    text = render(SERVICE, [web, pending], namespaces=False, wide=True)
    assert text.splitlines() == [
        "NAME            TYPE           CLUSTER-IP          EXTERNAL-IP   PORT(S)               "
        "AGE   SELECTOR",
        "web             NodePort       10.96.0.7,fd00::7   <none>        80:30080/TCP,53/UDP   "
        "30m   a=1,b=2",
        "a-longer-name   LoadBalancer   10.96.0.8           <pending>     <none>                "
        "30m   <none>",
    ]


def test_namespaces_come_first() -> None:
    web = {"metadata": metadata("web"), "addressType": "IPv4", "endpoints": None, "ports": None}
    header, row = render(ENDPOINT_SLICE, [web], namespaces=True, wide=False).splitlines()
    assert header.split() == ["NAMESPACE", "NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"]
    assert row.split() == ["default", "web", "IPv4", "<unset>", "<unset>", "30m"]


def test_a_terminating_pod() -> None:
    pod = {
        "metadata": metadata("a") | {"deletionTimestamp": "x"},
        "spec": {"containers": [{}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    row = render(POD, [pod], namespaces=False, wide=False).splitlines()[1]
    assert row.split() == ["a", "1/1", "Terminating", "0", "30m"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource)
def test_every_kind_prints_an_empty_object(kind: Any) -> None:
    object_ = {"metadata": metadata("x")}
    lines = render(kind, [object_], namespaces=True, wide=True).splitlines()
    assert len(lines) == 2
