"""/configz, /flagz and /statusz."""

import json
from pathlib import Path

from ebpf_lb.agent.config import Config
from ebpf_lb.agent.servers.zpages import Statusz, configz, flagz
from ebpf_lb.model.values import parse_network


def test_configz_has_the_files_keys_and_nothing_secret() -> None:
    config = Config(
        node_name="node1",
        kubeconfig=Path("/etc/kubeconfig"),
        cluster_cidrs=(parse_network("10.244.0.0/16"), parse_network("fd00::/48")),
        node_port_addresses=("primary",),
        healthz_bind_address=("::", 10256),
        metrics_bind_address=None,
    )
    found = json.loads(json.dumps(configz(config)))["ebpf-lb.io"]
    assert found["nodeName"] == "node1" and found["kubeconfig"] == "/etc/kubeconfig"
    assert found["clusterCidrs"] == ["10.244.0.0/16", "fd00::/48"]
    assert found["nodePortAddresses"] == ["primary"]
    assert found["healthzBindAddress"] == "[::]:10256" and found["metricsBindAddress"] == ""
    assert found["dataPath"]["services"] > 0 and "xdp" not in found["dataPath"]
    assert found["criticalServices"] == ["default/kubernetes", "kube-system/kube-dns"]
    assert found["cgroup"] == "none" and found["masqueradeAll"] is False


def test_flagz_names_what_is_in_force_as_flags() -> None:
    lines = flagz(Config(node_name="node1", node_port_addresses=("primary",))).split("\n")
    assert lines[1] == "ebpf-lb flagz" and lines[2].startswith("Warning: ")
    assert 'node-name="node1"' in lines and 'node-port-addresses=["primary"]' in lines
    assert "sync-period-s=30" in lines and "tcp-established-s=8000" in lines


def test_statusz_says_since_when_and_what() -> None:
    now = [100.0]
    page = Statusz("1.2.3", ["/metrics"], lambda: now[0])
    now[0] += 3725
    text = page.page()
    assert "Up: 1 hr 02 min 05 sec" in text and "Binary version: 1.2.3" in text
    assert "Paths: /metrics" in text
