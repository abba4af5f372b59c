"""How it is decided, step by step, each with its reason and the rule that asks for it.

What is decided is the kernel's own program's; what is said here is by which entries of the maps.
"""

from typing import TYPE_CHECKING

from ebpf_lb.cli.explain.ends import Asker
from ebpf_lb.cli.explain.explanation import Explanation, Step
from ebpf_lb.cli.explain.way import at_socket, socket_hooks
from ebpf_lb.model.values import format_address, format_endpoint

if TYPE_CHECKING:
    from ebpf_lb.datapath.question import Decision
    from ebpf_lb.datapath.reader import View
    from ebpf_lb.datapath.reader.services import Frontend, ServicePort

_KINDS = {
    "CLUSTER_IP": "ClusterIP",
    "LOAD_BALANCER": "load balancer's address",
    "EXTERNAL_IP": "external IP",
    "NODE_PORT": "nodePort",
}
_BY = {
    "random": "client, port and destination",
    "rr": "turn, as long as no other connection comes before (algorithm rr)",
    "lc": "the number of connections that each has now (algorithm lc)",
    "sh": "the client's address (algorithm sh)",
    "maglev": "the table of consistent hashing",
}


def takes_local_set(frontend: "Frontend", client: str) -> bool:
    """Whether the policy Local counts for this client."""
    short = frontend.kind != "CLUSTER_IP" and client != "REMOTE"
    return "LOCAL" in frontend.flags and not short


def say_policy(view: "View", found: Explanation, frontend: "Frontend", asker: Asker) -> None:
    """Which frontend is asked, from where, and what its policy means for this client."""
    client, kind = asker.client.value, _KINDS[frontend.kind]
    at = entry_of(view, asker, frontend.protocol or "")
    found.there.append(Step(at, f"{found.frontend} is the {kind} of {frontend.service}."))
    external = frontend.kind != "CLUSTER_IP"
    if "LOCAL" not in frontend.flags:
        word = "externalTrafficPolicy" if external else "internalTrafficPolicy"
        says = f"{word} is Cluster: any endpoint may be chosen."
        found.there.append(Step("policy", says, ("VE-3" if external else "VE-2",)))
    elif not external:
        says = "internalTrafficPolicy is Local: only endpoints of this node may be chosen."
        found.there.append(Step("policy", says, ("VE-2",)))
    elif client == "REMOTE":
        says = (
            "externalTrafficPolicy is Local: from outside only endpoints of this node may be "
            "chosen."
        )
        found.there.append(Step("policy", says, ("VE-6",)))
    else:
        says = (
            "externalTrafficPolicy is Local, but whoever asks from this node may have any "
            "endpoint, as if it were Cluster."
        )
        found.there.append(Step("policy", says, ("VE-4" if client == "POD" else "VE-5",)))


def say_source_ranges(view: "View", found: Explanation, frontend: "Frontend", asker: Asker) -> None:
    from ebpf_lb.datapath.reader.services import source_ranges

    if "SOURCE_RANGES" not in frontend.flags:
        return
    ranges = [
        f"{format_address(one.address)}/{one.prefix_length}"
        for one in source_ranges(view)
        if one.service_id == frontend.service_id
    ]
    shown = ", ".join(ranges[:8]) + (f" and {len(ranges) - 8} more" if len(ranges) > 8 else "")
    client = format_address(asker.address)
    if found.reason == "SOURCE_RANGE":
        says = f"{client} is in none of the Service's loadBalancerSourceRanges ({shown})."
        found.trouble(says)
    else:
        says = f"{client} is in the Service's loadBalancerSourceRanges ({shown})."
    found.there.append(Step("source ranges", says, ("VE-9",)))


def say_choice(
    view: "View", found: Explanation, port: "ServicePort", decision: "Decision", asker: Asker
) -> None:
    """Affinity, and which one it is."""
    from ebpf_lb.datapath.reader.services import affinities

    if decision.backend is None:
        return
    remembered = [
        one for one in affinities(view) if one.client == asker.address and one.service_id == port.id
    ]
    if port.affinity_timeout_s and remembered and remembered[0].backend_id == decision.backend_id:
        age = remembered[0].age_s
        ago = "" if age is None else f", since whose last new connection {age:.0f} s have gone by"
        says = (
            f"The client keeps to {found.backend} for {port.affinity_timeout_s} s (session "
            f"affinity){ago}."
        )
        found.there.append(Step("affinity", says, ("AF-1", "AF-2")))
        return
    if port.affinity_timeout_s:
        says = (
            f"Nothing is remembered of this client; it keeps to what is chosen now for "
            f"{port.affinity_timeout_s} s (session affinity)."
        )
        found.there.append(Step("affinity", says, ("AF-1", "AF-2")))
    by = _BY[port.algorithm]
    one = next((c for c in found.candidates if c.address == found.backend), None)
    share = f", which has {one.share:.1%} of new connections" if one else ""
    found.there.append(Step("choice", f"By {by}: {found.backend}{share}."))


def entry_of(view: "View", asker: Asker, protocol: str) -> str:
    """Where the decision is made."""
    if asker.client.value in ("NODE", "LOCALHOST"):
        if at_socket(asker, protocol, socket_hooks(view)):
            return "the node's own socket, connect or sendmsg"
        return "egress of the node's interface"
    return f"{asker.interface or 'its interface'}, ingress"


def say_frontend(found: Explanation, frontend: "Frontend") -> None:
    found.service = frontend.service
    found.frontend = format_endpoint(frontend.address, frontend.port)
