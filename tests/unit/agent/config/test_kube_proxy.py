"""kube-proxy's own file and flags, as they are."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ebpf_lb.agent.config import ConfigError, Resolved, load
from ebpf_lb.agent.config.kube_proxy import seconds
from ebpf_lb.cli.main import main
from ebpf_lb.model.values import parse_address, parse_network
from ebpf_lb.plan.node import LOOPBACK, nodeport_addresses

# As kubeadm writes it into the ConfigMap kube-proxy: most of it says nothing.
KUBEADM = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10:244::/48
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null,
  minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s,
  tcpFinTimeout: 0s, tcpTimeout: 0s, udpTimeout: 0s}
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "",
  rootHnsEndpointName: "", sourceVip: ""}
"""
HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


@pytest.fixture
def read(tmp_path: Path) -> Any:
    mounts = tmp_path / "mounts"
    mounts.touch()

    def call(text: str = "", flags: dict[str, str] | None = None, **own: str | None) -> Resolved:
        file = tmp_path / "config.conf"
        file.write_text(text)
        said = {path: (value, f"--{path}") for path, value in (flags or {}).items()}
        return load(own, {}, file, said, host_name=lambda: "Node-A", mounts=mounts)

    return call


def test_what_kubeadm_writes_is_taken_as_it_is(read: Any) -> None:
    found = read(KUBEADM)
    assert found.config.kubeconfig == Path("/var/lib/kube-proxy/kubeconfig.conf")
    assert found.config.cluster_cidrs == tuple(
        map(parse_network, ("10.244.0.0/16", "fd00:10:244::/48"))
    )
    assert found.config.node_name == "node-a"
    assert found.config.healthz_bind_address == ("0.0.0.0", 10256)
    assert found.config.conntrack_max_per_core == 32_768 and not found.config.masquerade_all
    (note,) = found.warnings
    assert note.startswith("these have no meaning here: bindAddress in ")
    assert "line 3" in note and note.count(";") == 0
    assert found.origins.keys() == {"kubeconfig", "clusterCidrs"}


def test_every_key_that_has_a_meaning_here(read: Any) -> None:
    found = read(
        HEAD + "hostnameOverride: Worker-7\nnodePortAddresses: [10.0.0.0/8, primary]\n"
        'healthzBindAddress: "[::]:1256"\nmetricsBindAddress: 0.0.0.0:1249\n'
        "conntrack: {maxPerCore: 0, min: 7, tcpEstablishedTimeout: 1h, tcpCloseWaitTimeout: 0s}\n"
        "iptables: {masqueradeAll: true}\nlogging: {format: json, verbosity: 5}\n"
        "detectLocal: {interfaceNamePrefix: tap}\nxdp: native\ndataPath: {flows: 4096}\n"
    )
    config = found.config
    assert found.warnings == [] and config.node_name == "worker-7"
    assert config.node_port_addresses == (parse_network("10.0.0.0/8"), "primary")
    assert config.healthz_bind_address == ("::", 1256)
    assert config.metrics_bind_address == ("0.0.0.0", 1249)
    assert (config.conntrack_max_per_core, config.conntrack_min) == (0, 7)
    assert config.conntrack_tcp_established_s == 3600
    assert config.conntrack_tcp_close_wait_s == 0
    assert config.masquerade_all and config.log_level == "debug" and config.log_format == "json"
    assert "tap*" in config.pod_interfaces
    assert config.xdp == "native" and config.settings.flows == 4096  # ours beside them


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("mode: nftables\n", ("primary",)),
        ("mode: nftables\nnodePortAddresses: [10.0.0.0/8]\n", (parse_network("10.0.0.0/8"),)),
        ("mode: iptables\n", ()),
        ("mode: ipvs\niptables: {localhostNodePorts: false}\n", ()),
    ],
)
def test_a_modes_own_default_of_node_port_addresses(read: Any, text: str, addresses: Any) -> None:
    assert read(HEAD + text).config.node_port_addresses == addresses


def test_localhost_can_be_left_out_as_in_iptables_mode(read: Any) -> None:
    config = read(HEAD + "iptables: {localhostNodePorts: false}\n").config
    own = [parse_address(text) for text in ("10.0.0.1", "198.51.100.1", "fd00::1", "2001:db8::1")]
    served = nodeport_addresses(own, networks=config.node_port_addresses)
    assert served == tuple(sorted(own)) and not set(LOOPBACK) & set(served)


def test_masquerade_all_is_that_of_the_mode(read: Any) -> None:
    both = "iptables: {masqueradeAll: true}\nnftables: {masqueradeAll: false}\n"
    assert read(HEAD + both).config.masquerade_all
    found = read(HEAD + "mode: nftables\n" + both)
    assert not found.config.masquerade_all and "iptables.masqueradeAll" in found.warnings[0]


def test_the_sync_period_is_that_of_the_mode(read: Any) -> None:
    both = "iptables: {syncPeriod: 2m}\nnftables: {syncPeriod: 1h}\n"
    assert read(HEAD + both).config.sync_period_s == 120
    assert read(HEAD + "mode: nftables\n" + both).config.sync_period_s == 3600
    assert read(HEAD, {"syncPeriod": "5s"}).config.sync_period_s == 5


@pytest.mark.parametrize(
    ("scheduler", "algorithm"),
    [("rr", "rr"), ("wrr", "rr"), ("lc", "lc"), ("wlc", "lc"), ("sh", "sh"), ("mh", "maglev")],
)
def test_ipvs_schedulers(read: Any, scheduler: str, algorithm: str) -> None:
    found = read(HEAD + f"mode: ipvs\nipvs: {{scheduler: {scheduler}}}\n")
    assert (found.config.algorithm, list(found.warnings)) == (algorithm, [])
    assert read(HEAD + f"ipvs: {{scheduler: {scheduler}}}\n").config.algorithm == "random"


def test_without_a_scheduler_ipvs_takes_turns(read: Any) -> None:
    assert read(HEAD + "mode: ipvs\n").config.algorithm == "rr"
    assert read(HEAD + "mode: ipvs\nalgorithm: sh\n").config.algorithm == "sh"


@pytest.mark.parametrize("scheduler", ["lblc", "lblcr", "dh", "sed", "nq", "fo", "ovf", "twos"])
def test_other_ipvs_schedulers_are_named_once(read: Any, scheduler: str) -> None:
    found = read(HEAD + f"mode: ipvs\nipvs: {{scheduler: {scheduler}}}\n")
    assert found.config.algorithm == "random"
    (said,) = found.warnings
    assert "ipvs.scheduler in " in said and f"'{scheduler}' is not supported" in said


@pytest.mark.parametrize(
    ("text", "flags", "words"),
    [
        (HEAD + "mode: kernelspace\n", {}, ["mode in ", "line 3", "iptables, ipvs, nftables"]),
        (HEAD + "\nconntrack:\n  min: many\n", {}, ["conntrack.min in ", "line 5", "'many'"]),
        (
            HEAD + "conntrack: {tcpEstablishedTimeout: 5 days}\n",
            {},
            ["tcpEstablishedTimeout", "line 3", "not a duration"],
        ),
        (HEAD.replace("v1alpha1", "v2"), {}, ["apiVersion in ", "line 1", "v1alpha1"]),
        ("kind: KubeProxyConfiguration\n", {}, ["apiVersion", "kubeproxy.config.k8s.io/v1alpha1"]),
        (
            HEAD + "clusterCIDR: 10.0.0.0/8\nclusterCidrs: [10.1.0.0/16]\n",
            {},
            ["clusterCidrs in ", "line 4", "clusterCIDR in ", "line 3", "contradict each other"],
        ),
        ("", {"healthzBindAddress": "::1:2:3:x"}, ["--healthzBindAddress is wrong"]),
        ("", {"logging.verbosity": "loud"}, ["--logging.verbosity is wrong", "'loud'"]),
    ],
)
def test_what_contradicts_is_refused_with_its_line(
    read: Any, text: str, flags: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text, flags)
    sentence = str(caught.value)
    assert all(word in sentence for word in words), sentence


def test_two_places_that_agree_are_none_to_complain_about(read: Any) -> None:
    text = HEAD + "hostnameOverride: a\nnodeName: a\n"
    assert read(text).config.node_name == "a"
    assert read(text, {"hostnameOverride": "B"}).config.node_name == "b"
    with pytest.raises(ConfigError, match="--node-name and --hostnameOverride contradict"):
        read(text, {"hostnameOverride": "B"}, node_name="c")


def test_a_flag_wins_over_the_file_also_with_zero(read: Any) -> None:
    text = HEAD + "iptables: {masqueradeAll: true}\nconntrack: {min: 7}\n"
    found = read(
        text, {"linux.masqueradeAll": "false", "conntrack.min": "0", "minSyncPeriod": "30s"}
    )
    assert not found.config.masquerade_all and found.config.conntrack_min == 0
    assert found.warnings == ["these have no meaning here: --minSyncPeriod"]
    assert (
        read(HEAD + "nodePortAddresses: [primary]\n", {"mode": "nftables"})
        .origins["nodePortAddresses"]
        .startswith("nodePortAddresses in")
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("0s", 0), ("5s", 5), ("1h0m30s", 3630), ("1500ms", 2), ("24h", 86400)],
)
def test_durations_of_go(text: str, expected: int) -> None:
    assert seconds(text) == expected


def test_config_show_prints_a_file_that_says_the_same(tmp_path: Path) -> None:
    file = tmp_path / "kube-proxy.conf"
    file.write_text(KUBEADM)
    line = ["config", "show", "--config", str(file), "-v=4", "--masquerade-all", "--node-name=n1"]
    line += ["--healthz-bind-address", "::", "--conntrack-min", "0", "--cgroup", "none"]
    wide = {"COLUMNS": "500"}  # what does not fit beside its value stands above it
    done = CliRunner().invoke(main, line, catch_exceptions=False, env=wide)
    assert done.exit_code == 0, done.output
    shown = {
        line.partition(":")[0].strip(): line.rpartition("# ")[2] for line in done.output.split("\n")
    }
    assert shown["clusterCidrs"] == f"clusterCIDR in {file}, line 11"
    assert shown["logLevel"] == "-v" and shown["masqueradeAll"] == "--masquerade-all"
    assert shown["nodeName"] == "--node-name" and shown["xdp"] == "default"
    content = yaml.safe_load(done.output)
    assert content["healthzBindAddress"] == "[::]:10256" and content["logLevel"] == "debug"
    first = load({}, {}, file, {"hostnameOverride": ("n1", "")}).config
    again = tmp_path / "again.yaml"
    again.write_text(done.output)
    found = load({}, {}, again)
    assert found.warnings == []
    assert found.config.cluster_cidrs == first.cluster_cidrs and found.config.masquerade_all
    assert found.config.conntrack_min == 0 and found.config.cgroup is None


def test_flags_that_ask_for_something_else_say_where_it_is() -> None:
    done = CliRunner().invoke(main, ["agent", "--cleanup"])
    assert done.exit_code == 2 and "`ebpf-lb cleanup`" in done.output
