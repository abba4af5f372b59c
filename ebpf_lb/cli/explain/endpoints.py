"""Which endpoints may be chosen, and which not, and why."""

from typing import TYPE_CHECKING

from ebpf_lb.cli.cluster import Cluster
from ebpf_lb.cli.explain.explanation import Candidate, Excluded, Explanation
from ebpf_lb.model.values import Network, Protocol, format_endpoint

if TYPE_CHECKING:
    from ebpf_lb.cli.left_out import Endpoints
    from ebpf_lb.datapath.reader import View
    from ebpf_lb.datapath.reader.services import Backend, ServicePort

MOST = 64
"""Candidates that are looked at one by one."""


def say_endpoints(
    view: "View", found: Explanation, port: "ServicePort", local: bool, cluster: Cluster
) -> "list[tuple[Candidate, Backend]]":
    """Those that may be chosen, with what stands in the maps of them."""
    from ebpf_lb.cli.left_out import Endpoints
    from ebpf_lb.datapath.reader.summary import backend_summaries

    known = Endpoints.ask(cluster, port.service, Protocol[port.protocol], view.family)
    chosen = port.local if local else port.cluster
    total = sum(chosen.values())
    listed = []
    for summary in backend_summaries(view):
        one = summary.backend
        if one.service_id != port.id:
            continue
        text = format_endpoint(one.address, one.port)
        if one.id in chosen:
            here = "ON_NODE" in one.flags
            candidate = Candidate(
                text,
                "here" if here else "on another node",
                round(chosen[one.id] / total, 4),
                summary.answered,
                summary.unanswered,
                summary.refused,
                (known.nodes.get(one.address) or None) if known else None,
                known.pods.get(one.address) if known else None,
            )
            found.candidates.append(candidate)
            listed.append((candidate, one))
        elif known is None:
            found.excluded.append(Excluded(text, *_why_not(one, local)))
    if known is not None:
        found.excluded += [Excluded(*one) for one in known.left_out(local=local)]
        _compare(view, found, known, listed, cluster)
    return listed


def _why_not(backend: "Backend", local: bool) -> tuple[str, str]:
    """As the maps tell it."""
    if "IN_CLUSTER_SET" not in backend.flags and "IN_LOCAL_SET" not in backend.flags:
        return "no longer usable; it keeps the connections that it has", "EP-11"
    if local:
        return "it runs on another node, and the policy is Local", "EP-9"
    return "topology or readiness keeps it out of the cluster's set", "EP-12"


def _compare(
    view: "View",
    found: Explanation,
    known: "Endpoints",
    listed: "list[tuple[Candidate, Backend]]",
    cluster: Cluster,
) -> None:
    """Between the maps and the API server."""
    from ebpf_lb.datapath.reader.node import pod_networks

    networks = [Network(*one) for one in pod_networks(view)]
    there = {(one.address, one.port) for one in known.places}
    out = {one.address for one in found.excluded}
    for candidate, backend in listed[:MOST]:
        if (backend.address, backend.port) not in there:
            found.trouble(
                f"This node may choose {candidate.address}, which the API server has no longer: "
                "the agent does not follow (`ebpf-lb status`)."
            )
            continue
        if candidate.address in out:
            found.trouble(
                f"This node may choose {candidate.address}, which the API server calls unusable by "
                "now: the agent does not follow (`ebpf-lb status`)."
            )
    ends = [(one.address, one.port) for _, one in listed[:MOST]]
    for sentence in known.troubles(cluster, ends, networks):
        found.trouble(sentence)
    have = {(backend.address, backend.port) for _, backend in listed}
    for place in known.places:
        text = format_endpoint(place.address, place.port)
        if (place.address, place.port) not in have and text not in out:
            found.trouble(
                f"The API server calls {text} usable, but it is not in this node's maps: the agent "
                "does not follow (`ebpf-lb status`)."
            )


def say_connections(found: Explanation) -> None:
    """What became of the connections that this node knows."""
    for one in found.candidates:
        if one.answered:
            continue
        if one.refused:
            found.trouble(
                f"{one.address} has refused {one.refused:,} of its connections and answered none: "
                "does anything listen on that port?"
            )
        elif one.unanswered:
            found.trouble(
                f"{one.address} has answered none of the {one.unanswered:,} connections to it that "
                "this node has waiting."
            )
