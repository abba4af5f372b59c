"""What ports a pod serves on, and how it becomes ready."""

from typing import Any

import pytest

from ebpf_lb.lab.kubelet.manifest import Ports, Probe, ports, readiness_probe, serves_on_s


def pod(**container: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "c", **container}]}}


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({}, Ports({8080}, {8080})),
        ({"ports": [{"containerPort": 9376}]}, Ports({9376})),
        (
            {
                "ports": [
                    {"containerPort": 53, "protocol": "UDP"},
                    {"containerPort": 53, "protocol": "TCP"},
                    {"containerPort": 54, "protocol": "SCTP"},
                ]
            },
            Ports({53}, {53}, {54}),
        ),
        ({"args": ["serve-hostname"]}, Ports({9376})),
        ({"args": ["serve-hostname", "--port", "80"]}, Ports({80})),
        ({"args": ["serve-hostname", "--udp", "--port=80"]}, Ports(set(), {80})),
        ({"command": ["/agnhost", "serve-hostname", "--http=true"]}, Ports({9376})),
        ({"command": ["/serve_hostname"]}, Ports({9376})),
        ({"args": ["netexec"]}, Ports({8080}, {8081})),
        (
            {"args": ["netexec", "--http-port=80", "--udp-port", "90", "--sctp-port=91"]},
            Ports({80}, {90}, {91}),
        ),
        ({"args": ["netexec"], "ports": [{"containerPort": 7}]}, Ports({7, 8080}, {8081})),
    ],
)
def test_ports(container: dict[str, Any], expected: Ports) -> None:
    assert ports(pod(**container)) == expected


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ({}, None),
        ({"exec": {"command": ["true"]}}, None),
        ({"tcpSocket": {"port": 80}, "periodSeconds": 1}, Probe(80, None, 0, 1)),
        (
            {"httpGet": {"port": "web", "path": "/readyz"}, "initialDelaySeconds": 3},
            Probe(8080, "/readyz", 3, 10),
        ),
    ],
)
def test_readiness_probe(probe: dict[str, Any], expected: Probe | None) -> None:
    manifest = pod(ports=[{"name": "web", "containerPort": 8080}], readinessProbe=probe)
    assert readiness_probe(manifest) == expected


@pytest.mark.parametrize(
    ("granted", "sleep", "expected"),
    [(30, None, 0), (30, 5, 5), (3, 5, 3), (3600, None, 3600), (0, 5, 0)],
)
def test_how_long_a_deleted_pod_serves_on(granted: int, sleep: int | None, expected: int) -> None:
    hook = {"lifecycle": {"preStop": {"sleep": {"seconds": sleep}}}} if sleep else {}
    manifest = pod(**hook)
    manifest["spec"]["terminationGracePeriodSeconds"] = 30
    manifest["metadata"] = {"deletionGracePeriodSeconds": granted}
    assert serves_on_s(manifest) == expected
