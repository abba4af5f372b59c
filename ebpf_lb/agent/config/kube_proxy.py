"""kube-proxy's configuration as ours: a KubeProxyConfiguration as it is, and its flags by name.

A table says for each of its keys which of ours has its meaning. What has none here is named once;
a value that kube-proxy's defaulting would replace (null, "", 0s) is as good as not said.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from typing import Any

from ebpf_lb.agent.config.errors import ConfigError
from ebpf_lb.agent.config.keys import POD_INTERFACES
from ebpf_lb.model.ports import HEALTHZ_PORT, METRICS_PORT

KIND = "KubeProxyConfiguration"
_GROUP, _VERSION = "kubeproxy.config.k8s.io", "v1alpha1"
_FRAME = ("apiVersion", "kind")

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SPAN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)")
_DEBUG = 4  # the verbosity from which on kube-proxy tells of single changes


@dataclass(frozen=True, slots=True)
class Said:
    """A value for one of our keys. `source`: where it stands, for people. `default`: it only
    follows from something else, and gives way to whatever is said."""

    key: str
    value: Any
    source: str
    default: bool = False


def seconds(value: Any) -> int:
    """Of a duration as Go writes it, such as 1h0m30s."""
    text = str(value).strip()
    if text == "0":
        return 0
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{value!r} is not a duration such as 5s or 1h30m")
    return round(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def _address(port: int) -> Callable[[Any], Any]:
    """An address may stand without the port that is kube-proxy's default."""

    def convert(value: Any) -> Any:
        text = str(value).strip()
        try:
            address = ip_address(text.removeprefix("[").removesuffix("]"))
        except ValueError:
            return text
        return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"

    return convert


def _level(value: Any) -> str:
    try:
        return "debug" if int(str(value).removeprefix("=")) >= _DEBUG else "info"
    except ValueError:
        raise ValueError(f"{value!r} is not a whole number") from None


def _format(value: Any) -> str:
    return {"text": "console"}.get(str(value), str(value))


def _prefix(value: Any) -> list[str]:
    return [*POD_INTERFACES, f"{value}*"]


def _same(value: Any) -> Any:
    return value


MEANING: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "clientConnection.kubeconfig": ("kubeconfig", _same),
    "hostnameOverride": ("node_name", lambda value: str(value).strip().lower()),
    "clusterCIDR": ("cluster_cidrs", _same),
    "detectLocal.interfaceNamePrefix": ("pod_interfaces", _prefix),
    "nodePortAddresses": ("node_port_addresses", _same),
    "healthzBindAddress": ("healthz_bind_address", _address(HEALTHZ_PORT)),
    "metricsBindAddress": ("metrics_bind_address", _address(METRICS_PORT)),
    "conntrack.maxPerCore": ("conntrack_max_per_core", _same),
    "conntrack.min": ("conntrack_min", _same),
    "conntrack.tcpEstablishedTimeout": ("conntrack_tcp_established_s", seconds),
    "conntrack.tcpCloseWaitTimeout": ("conntrack_tcp_close_wait_s", seconds),
    "iptables.masqueradeAll": ("masquerade_all", _same),
    "nftables.masqueradeAll": ("masquerade_all", _same),
    "linux.masqueradeAll": ("masquerade_all", _same),
    "syncPeriod": ("sync_period_s", seconds),
    "iptables.syncPeriod": ("sync_period_s", seconds),
    "ipvs.syncPeriod": ("sync_period_s", seconds),
    "nftables.syncPeriod": ("sync_period_s", seconds),
    "logging.format": ("log_format", _format),
    "logging.verbosity": ("log_level", _level),
}
"""kube-proxy's key -> ours, and how its value becomes one of ours."""

LOOKED_AT = {
    "mode": "`iptables`, `ipvs` or `nftables`: defaults that differ by mode are those of this one",
    "ipvs.scheduler": "in mode `ipvs`, as `algorithm`: `rr` and `wrr` are `rr`, `lc` and `wlc` are "
    "`lc`, `sh` is `sh`, `mh` is `maglev`; default: `rr`. Others are not supported",
    "iptables.localhostNodePorts": "false: `nodePortAddresses` are all but localhost",
    "detectLocalMode": "clients of pods are known by addresses, whatever the mode",
}
"""Understood without a key of ours that has their meaning: `translate` looks at them."""

# Where zero says something: leave the kernel's value alone.
_ZERO_COUNTS = (
    "conntrack.maxPerCore",
    "conntrack.min",
    "conntrack.tcpEstablishedTimeout",
    "conntrack.tcpCloseWaitTimeout",
)

NO_MEANING = (
    "bindAddress",
    "bindAddressHardFail",
    "clientConnection.acceptContentTypes",
    "clientConnection.burst",
    "clientConnection.contentType",
    "clientConnection.qps",
    "configSyncPeriod",
    "conntrack.tcpBeLiberal",
    "conntrack.udpStreamTimeout",
    "conntrack.udpTimeout",
    "detectLocal.bridgeInterface",
    "enableProfiling",
    "featureGates",
    "iptables.masqueradeBit",
    "iptables.minSyncPeriod",
    "ipvs.excludeCIDRs",
    "ipvs.masqueradeBit",
    "ipvs.minSyncPeriod",
    "ipvs.strictARP",
    "ipvs.tcpFinTimeout",
    "ipvs.tcpTimeout",
    "ipvs.udpTimeout",
    "logging.flushFrequency",
    "logging.options",
    "logging.vmodule",
    "minSyncPeriod",
    "nftables.masqueradeBit",
    "nftables.minSyncPeriod",
    "oomScoreAdj",
    "portRange",
    "showHiddenMetricsForVersion",
    "udpIdleTimeout",
    "windowsRunAsService",
    "winkernel",
)
_KNOWN = frozenset((*MEANING, *LOOKED_AT, *NO_MEANING))
_SECTIONS = frozenset(path.partition(".")[0] for path in _KNOWN if "." in path)

_MODES = ("iptables", "ipvs", "nftables")
# Weights are a Service's annotation here, and count with every algorithm.
_SCHEDULERS = {"rr": "rr", "wrr": "rr", "lc": "lc", "wlc": "lc", "sh": "sh", "mh": "maglev"}
_IPVS_DEFAULT = "rr"


def is_one(values: Mapping[Any, Any]) -> bool:
    """Whether a file is a KubeProxyConfiguration."""
    group = str(values.get("apiVersion", "")).partition("/")[0]
    return values.get("kind") == KIND or group == _GROUP


def take(values: dict[Any, Any], where: Callable[[str], str]) -> dict[str, tuple[Any, str]]:
    """Takes kube-proxy's keys out of a file's, and leaves those that are not its. What was said, by
    key with dots, with the place where it stands. ConfigError: another kind, or another version."""
    version, kind = (values.pop(key, None) for key in _FRAME)
    if kind != KIND or version != f"{_GROUP}/{_VERSION}":
        raise ConfigError(
            f"{where('kind' if kind != KIND else 'apiVersion')} is wrong: the file has to be "
            f"a {KIND} of {_GROUP}/{_VERSION}."
        )
    found = {}
    for path, value in list(_flat(values)):
        if path in _KNOWN:
            _remove(values, path)
            if _says_something(path, value):
                found[path] = (value, where(path))
    for section in _SECTIONS:
        if not values.get(section):
            values.pop(section, None)
    return found


def translate(said: Mapping[str, tuple[Any, str]]) -> tuple[list[Said], list[str]]:
    """What was said by kube-proxy's keys, as values of ours, and sentences about what means nothing
    here. ConfigError: it contradicts, or cannot be."""
    mode, where = said.get("mode", ("", ""))
    if mode and mode not in _MODES:
        raise ConfigError(f"{where} is wrong: {mode!r} is not one of {', '.join(_MODES)}.")
    skipped = _of_other_modes(str(mode) or "iptables")
    meaningless = [said[path][1] for path in said if path in skipped.union(NO_MEANING)]
    found = []
    for path, (value, source) in said.items():
        if path in MEANING and path not in skipped:
            key, convert = MEANING[path]
            try:
                found.append(Said(key, convert(value), source))
            except ValueError as error:
                raise ConfigError(f"{source} is wrong: {error}.") from error
    found += _by_mode(str(mode), said)
    notes = [_note(meaningless)] if meaningless else []
    return found, notes + list(_unsupported(str(mode), said))


def _of_other_modes(mode: str) -> set[str]:
    """Keys that kube-proxy does not look at in this mode; ipvs has masqueradeAll of iptables."""
    sections = {"iptables", "ipvs", "nftables"} - {mode}
    masquerading = "nftables" if mode == "nftables" else "iptables"
    others = {path for path in MEANING if path.partition(".")[0] in sections}
    return others - {f"{masquerading}.masqueradeAll"}


def _by_mode(mode: str, said: Mapping[str, tuple[Any, str]]) -> Iterator[Said]:
    """What is another default, or holds, in one of kube-proxy's modes only."""
    if "nodePortAddresses" not in said:
        local, where = said.get("iptables.localhostNodePorts", (True, ""))
        if mode == "nftables":
            yield Said("node_port_addresses", ["primary"], said["mode"][1], default=True)
        elif str(local).lower() == "false" and mode != "ipvs":
            yield Said("node_port_addresses", _all_but_localhost(), where, default=True)
    scheduler, where = said.get("ipvs.scheduler", ("", ""))
    if mode == "ipvs" and not scheduler:
        yield Said("algorithm", _IPVS_DEFAULT, said["mode"][1], default=True)
    elif mode == "ipvs" and scheduler in _SCHEDULERS:
        yield Said("algorithm", _SCHEDULERS[scheduler], where)


def _all_but_localhost() -> list[str]:
    """No word of nodePortAddresses says it; of IPv6, what a node's addresses come from."""
    everything, localhost = IPv4Network("0.0.0.0/0"), IPv4Network("127.0.0.0/8")
    return [*map(str, everything.address_exclude(localhost)), "2000::/3", "fc00::/7"]


def _unsupported(mode: str, said: Mapping[str, tuple[Any, str]]) -> Iterator[str]:
    scheduler, where = said.get("ipvs.scheduler", ("", ""))
    if mode == "ipvs" and scheduler and scheduler not in _SCHEDULERS:
        yield (
            f"{where}: {scheduler!r} is not supported (it is not one of {', '.join(_SCHEDULERS)}); "
            "connections are spread at random, and by Services' annotation ebpf-lb.io/algorithm"
        )
    local, where = said.get("detectLocalMode", ("", ""))
    if local == "BridgeInterface":
        yield f"{where}: clients of pods are known by addresses here (clusterCIDR), not by a bridge"


def _note(sources: list[str]) -> str:
    return f"these have no meaning here: {'; '.join(sorted(sources))}"


def _says_something(path: str, value: Any) -> bool:
    if value is None or value == "":
        return False
    if path == "iptables.localhostNodePorts":
        return True
    if path in _ZERO_COUNTS:
        return True
    if isinstance(value, dict):
        return any(_says_something("", one) for one in value.values())
    return value not in (False, 0, "0", [], ()) and not _is_zero_span(value)


def _is_zero_span(value: Any) -> bool:
    try:
        return isinstance(value, str) and seconds(value) == 0
    except ValueError:
        return False


def _flat(values: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key in _SECTIONS and isinstance(value, dict):
            yield from ((f"{key}.{inner}", one) for inner, one in value.items())
        else:
            yield str(key), value


def _remove(values: dict[Any, Any], path: str) -> None:
    section, dot, key = path.partition(".")
    if dot:
        del values[section][key]
    else:
        del values[section]
