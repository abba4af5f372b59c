"""What a Pod's manifest says that a lab's pod can be: on which ports it serves, and how one finds
out that it is ready. Manifests come from the API server, which has validated them."""

from dataclasses import dataclass, field
from typing import Any

# What agnhost's commands listen on when nothing is said: netexec's, and serve-hostname's.
_HTTP, _UDP, _HOSTNAME = 8080, 8081, 9376


@dataclass(slots=True)
class Ports:
    """Ports to serve on, by protocol."""

    tcp: set[int] = field(default_factory=set)
    udp: set[int] = field(default_factory=set)
    sctp: set[int] = field(default_factory=set)

    def add(self, protocol: str, port: int) -> None:
        {"TCP": self.tcp, "UDP": self.udp, "SCTP": self.sctp}[protocol].add(port)

    def __bool__(self) -> bool:
        return bool(self.tcp or self.udp or self.sctp)


def ports(pod: dict[str, Any]) -> Ports:
    """The ports in the manifest, and those that agnhost's arguments name; a pod which says nothing
    at all serves on 8080, TCP and UDP."""
    found = Ports()
    for container in pod["spec"].get("containers", []):
        for port in container.get("ports") or []:
            found.add(port.get("protocol") or "TCP", port["containerPort"])
        _agnhost(found, [*(container.get("command") or []), *(container.get("args") or [])])
    if not found:
        found.tcp, found.udp = {_HTTP}, {_HTTP}
    return found


def _agnhost(found: Ports, words: list[str]) -> None:
    """Understands `netexec` and `serve-hostname`, the latter by its old image's name too."""
    options = _options(words)
    if "netexec" in words:
        found.add("TCP", int(options.get("http-port", _HTTP)))
        found.add("UDP", int(options.get("udp-port", _UDP)))
        sctp = int(options.get("sctp-port", -1))
        if sctp > 0:
            found.add("SCTP", sctp)
    elif any(word.rpartition("/")[2].replace("_", "-") == "serve-hostname" for word in words):
        port = int(options.get("port", _HOSTNAME))
        if "udp" in options:
            found.add("UDP", port)
        if "udp" not in options or "tcp" in options:
            found.add("TCP", port)


def _options(words: list[str]) -> dict[str, str]:
    """`--name=value`, `--name value` and `-name`, as Go's flag packages take them."""
    options = {}
    for position, word in enumerate(words):
        if not word.startswith("-"):
            continue
        name, has_value, value = word.lstrip("-").partition("=")
        following = words[position + 1] if position + 1 < len(words) else ""
        options[name] = value if has_value else following
    return options


def serves_on_s(pod: dict[str, Any]) -> float:
    """How long after its deletion was asked for a pod goes on serving, in seconds.

    As agnhost on SIGTERM: not at all, but for a `preStop` hook that sleeps. Somebody who deletes it
    with a longer grace period than its own wants to see it terminating: then all of that time.
    """
    own = pod["spec"].get("terminationGracePeriodSeconds", 30)
    granted = pod["metadata"].get("deletionGracePeriodSeconds", own)
    if granted > own:
        return float(granted)
    hooks = [
        ((container.get("lifecycle") or {}).get("preStop") or {}).get("sleep") or {}
        for container in pod["spec"].get("containers", [])
    ]
    return float(min(granted, max((hook.get("seconds", 0) for hook in hooks), default=0)))


def is_dns_server(pod: dict[str, Any]) -> bool:
    """Whether it runs CoreDNS, by its image's name: then the lab's own runs in its place."""
    return _image(pod)[-1] == "coredns"


def is_ingress_controller(pod: dict[str, Any]) -> bool:
    """Likewise, ingress-nginx."""
    return _image(pod)[-2:] == ["ingress-nginx", "controller"]


def _image(pod: dict[str, Any]) -> list[str]:
    """The parts of its name, without tag and digest."""
    image = str(pod["spec"]["containers"][0].get("image", "")).partition("@")[0]
    *folders, name = image.split("/")
    return [*folders, name.partition(":")[0]]


@dataclass(frozen=True, slots=True)
class Probe:
    """A readinessProbe: succeeds when the pod accepts a connection on a port; over HTTP, when it
    answers a path with a status from 200 to 399. Times in seconds."""

    port: int
    path: str | None
    initial_delay_s: float
    period_s: float


def readiness_probe(pod: dict[str, Any]) -> Probe | None:
    """The first container's readinessProbe, if the lab can do it (httpGet and tcpSocket)."""
    for container in pod["spec"].get("containers", []):
        probe = container.get("readinessProbe") or {}
        action = probe.get("httpGet") or probe.get("tcpSocket")
        if not action:
            continue
        named = {p.get("name"): p["containerPort"] for p in container.get("ports") or []}
        port = action["port"]
        number = port if isinstance(port, int) else named.get(port)
        if number is None:
            number = int(port) if str(port).isdigit() else 0
        return Probe(
            port=number,
            path=(action.get("path") or "/") if "httpGet" in probe else None,
            initial_delay_s=float(probe.get("initialDelaySeconds") or 0),
            period_s=float(probe.get("periodSeconds") or 10),
        )
    return None
