"""Where a value comes from, and how one that cannot be is refused."""

from pathlib import Path
from typing import Any

import pytest

from ebpf_lb.agent.config import Config, ConfigError, cgroup_root, load
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import parse_network

MOUNTS = "sysfs /sys sysfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Loads a configuration out of a file's text, an environment and flags."""
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)

    def call(
        text: str | None = None,
        environment: dict[str, str] | None = None,
        **flags: str | None,
    ) -> tuple[Config, list[str]]:
        file = None
        if text is not None:
            file = tmp_path / "config.yaml"
            file.write_text(text)
        found = load(flags, environment or {}, file, host_name=lambda: "Node-A", mounts=mounts)
        return found.config, found.warnings

    return call


def test_without_anything_the_machine_decides(read: Any) -> None:
    config, warnings = read()
    assert config.node_name == "node-a"  # as the kubelet spells it
    assert config.cgroup == Path("/sys/fs/cgroup")
    assert config.bpffs == Path("/sys/fs/bpf/ebpf-lb")
    assert config.healthz_bind_address == ("0.0.0.0", 10256)
    assert config.kubeconfig is None
    assert warnings == []


def test_sockets_need_not_be_served(read: Any) -> None:
    assert read("cgroup: none\n")[0].cgroup is None
    assert read(cgroup="None")[0].cgroup is None


def test_a_flag_wins_over_the_environment_that_over_the_file(read: Any) -> None:
    text = "nodeName: file\n"
    environment = {"EBPF_LB_NODE_NAME": "environment"}
    assert read(text)[0].node_name == "file"
    assert read(text, environment)[0].node_name == "environment"
    assert read(text, environment, node_name="flag")[0].node_name == "flag"
    assert read(text, environment, node_name=None)[0].node_name == "environment"


def test_who_is_never_left_out_and_what_a_namespace_can_take(read: Any) -> None:
    config, _ = read()
    assert [str(key) for key in config.critical_services] == [
        "default/kubernetes",
        "kube-system/kube-dns",
    ]
    assert config.namespace_share == 50
    config, _ = read("criticalServices: [a/b]\nnamespaceShare: 100\n")
    assert (config.critical_services, config.namespace_share) == ((ObjectKey("a", "b"),), 100)
    for wrong in ("b", "a/", "/b", "a/b/c"):
        with pytest.raises(ConfigError, match=f"'{wrong}' is not NAMESPACE/NAME"):
            read(f"criticalServices: [{wrong}]\n")


def test_every_kind_of_value_from_file_and_environment(read: Any) -> None:
    networks = tuple(map(parse_network, ("10.244.0.0/16", "fd00::/48")))
    from_file, _ = read(
        'clusterCidrs: [10.244.0.0/16, "fd00::/48"]\n'
        "nodePortAddresses: [primary]\n"
        "masqueradeAll: true\n"
        'healthzBindAddress: "[::]:1"\n'
        'metricsBindAddress: ""\n'
        "endpointsSource: endpoints\n"
        "algorithm: maglev\n"
        "podInterfaces: [a*, b*]\n"
        "uplinkInterfaces: [wan*]\n"
        "ignoredInterfaces: [br-*, docker0]\n"
        "xdp: native\n"
        "dataPath: {flows: 4096, tcpSynS: 5}\n"
    )
    from_environment, _ = read(
        environment={
            "EBPF_LB_CLUSTER_CIDRS": "10.244.0.0/16,fd00::/48",
            "EBPF_LB_NODE_PORT_ADDRESSES": "primary",
            "EBPF_LB_MASQUERADE_ALL": "yes",
            "EBPF_LB_HEALTHZ_BIND_ADDRESS": "[::]:1",
            "EBPF_LB_METRICS_BIND_ADDRESS": "",
            "EBPF_LB_ENDPOINTS_SOURCE": "endpoints",
            "EBPF_LB_ALGORITHM": "maglev",
            "EBPF_LB_POD_INTERFACES": "a*,b*",
            "EBPF_LB_UPLINK_INTERFACES": "wan*",
            "EBPF_LB_IGNORED_INTERFACES": "br-*,docker0",
            "EBPF_LB_XDP": "NATIVE",
            "EBPF_LB_FLOWS": "4096",
            "EBPF_LB_TCP_SYN_S": "5",
        }
    )
    assert from_file == from_environment
    assert from_file.cluster_cidrs == networks
    assert from_file.node_port_addresses == ("primary",)
    assert from_file.masquerade_all
    assert from_file.endpoints_source == "endpoints"
    assert from_file.algorithm == "maglev"
    assert from_file.healthz_bind_address == ("::", 1)
    assert from_file.metrics_bind_address is None
    assert from_file.pod_interfaces == ("a*", "b*")
    assert from_file.uplink_interfaces == ("wan*",)
    assert from_file.ignored_interfaces == ("br-*", "docker0")
    assert from_file.xdp == "native"
    assert (from_file.settings.flows, from_file.settings.tcp_syn_s) == (4096, 5)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (None, "off"),
        ("xdp: off", "off"),  # YAML takes it for false
        ('xdp: "off"', "off"),
        ("xdp: generic", "generic"),
        ("xdp: auto", "auto"),
    ],
)
def test_the_mode_of_xdp_says_whether_its_program_is_built(
    read: Any, text: str | None, mode: str
) -> None:
    config, warnings = read(text)
    assert (config.xdp, config.settings.xdp) == (mode, mode != "off")
    assert config.settings.xdp_generic == (mode == "generic")
    assert warnings == []
    assert read(xdp="native")[0].settings.xdp


def test_unknown_keys_are_told_and_tolerated(read: Any) -> None:
    config, warnings = read("nodeNmae: x\nnodeName: y\ndataPath: {flow: 3}\n")
    assert config.node_name == "y"
    assert [warning.split(" ")[0] for warning in warnings] == ["nodeNmae", "dataPath.flow"]


@pytest.mark.parametrize(
    ("text", "environment", "flags", "words"),
    [
        ("clusterCidrs: [x]", {}, {}, ["clusterCidrs", "config.yaml", "'x'", "CIDR"]),
        ("clusterCidrs: 3", {}, {}, ["clusterCidrs", "3 is not a list"]),
        ("listPageSize: 0", {}, {}, ["listPageSize", "between 1 and 100000"]),
        ("listPageSize: true", {}, {}, ["listPageSize", "not a whole number"]),
        ("masqueradeAll: maybe", {}, {}, ["masqueradeAll", "neither true nor false"]),
        ("algorithm: fair", {}, {}, ["algorithm", "'fair'", "random, rr, lc, sh, maglev"]),
        ("xdp: on", {}, {}, ["xdp", "off, generic, native, auto"]),
        (None, {}, {"xdp": "driver"}, ["--xdp", "'driver'"]),
        ("logLevel: loud", {}, {}, ["logLevel", "debug, info, warning, error"]),
        ("healthzBindAddress: ::1:80", {}, {}, ["healthzBindAddress", "'::1:80'"]),
        ("nodePortAddresses: [primary, eth0]", {}, {}, ["nodePortAddresses", "eth0"]),
        ("dataPath: {services: 70000}", {}, {}, ["dataPath.services", "65536"]),
        ("dataPath: {closingS: 0}", {}, {}, ["dataPath.closingS", "between 1 and 604800"]),
        ("dataPath: {udpS: 1.5}", {}, {}, ["dataPath.udpS", "not a whole number"]),
        (None, {"EBPF_LB_TCP_SYN_S": "700000"}, {}, ["EBPF_LB_TCP_SYN_S", "604800"]),
        ("dataPath: 3", {}, {}, ["dataPath", "keys and values"]),
        ("- a\n- b", {}, {}, ["config.yaml", "keys and values"]),
        ("a: [", {}, {}, ["config.yaml", "line", "YAML"]),
        (None, {"EBPF_LB_FLOWS": "many"}, {}, ["EBPF_LB_FLOWS", "'many'"]),
        (None, {}, {"cluster_cidrs": "10.0.0.1"}, ["--cluster-cidr", "'10.0.0.1'"]),
        (None, {}, {"node_name": " "}, ["--node-name"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    read: Any,
    text: str | None,
    environment: dict[str, str],
    flags: dict[str, str],
    words: list[str],
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text, environment, **flags)
    sentence = str(caught.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot read .*missing.yaml: No such file"):
        load({}, {}, tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        (MOUNTS, Path("/sys/fs/cgroup")),
        ("cgroup2 /a cgroup2 rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
         Path("/sys/fs/cgroup")),
        ("tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
         Path("/sys/fs/cgroup/unified")),
        ("cgroup2 /a\\040b cgroup2 rw 0 0\n", Path("/a b")),
        ("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n", None),
    ],
)  # fmt: skip
def test_where_cgroup_version_2_is(tmp_path: Path, mounts: str, expected: Path | None) -> None:
    file = tmp_path / "mounts"
    file.write_text(mounts)
    assert cgroup_root(file) == expected


@pytest.mark.rule("KI-12")
def test_node_port_addresses_are_networks_and_words_in_any_mixture(read: Any) -> None:
    config, _ = read("nodePortAddresses: [primary, localhost, 10.0.0.0/8]")
    assert config.node_port_addresses == ("primary", "localhost", parse_network("10.0.0.0/8"))
    config, _ = read(node_port_addresses="all")
    assert config.node_port_addresses == ("all",)
