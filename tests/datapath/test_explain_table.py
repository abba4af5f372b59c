"""What `explain` says is what every cell of tests/scenarios/verdicts.yaml says, and what the oracle
says of clusters made by chance."""

from collections.abc import Mapping

import pytest

from ebpf_lb.cli.cluster import Cluster
from ebpf_lb.cli.explain.command import explain_asker
from ebpf_lb.cli.explain.ends import Asker
from ebpf_lb.datapath import question
from ebpf_lb.datapath.reader import View
from ebpf_lb.model.values import Family, Protocol, format_endpoint, parse_address
from tests.datapath.chain import Chain
from tests.datapath.kernel import Kernel
from tests.datapath.mutation import seeded
from tests.oracle.oracle import AS_BUILT, Client, ClientKind, Destination, Kind, verdict
from tests.oracle.situations import NOTHING, Situation, after, clients, destinations
from tests.scenarios import verdicts
from tests.scenarios.test_by_oracle import THIS_NODE
from tests.scenarios.verdicts import ENDPOINTS, POLICIES, Cell, address_of_pod, cells
from tests.support.chance import times

WORDS = {"forward": "answered", "reject": "refused", "drop": "dropped"}
WHO = {
    "pod": question.Client.POD,
    "node": question.Client.NODE,
    "pod elsewhere": question.Client.REMOTE,
    "outside": question.Client.REMOTE,
}


def difference(view: View, cell: Cell, port: int) -> str:
    """Between a cell and what is said of it; "" if there is none."""
    expected, version = cells()[cell], int(view.family)
    asker = Asker(WHO[cell.client], parse_address(verdicts.client(cell, version)), port)
    address, number = verdicts.destination(cell, version)
    target = format_endpoint(parse_address(address), number)
    found = explain_asker(view, asker, target, Protocol.TCP, Cluster(None, wanted=False))
    if WORDS.get(found.verdict) != expected.kind:
        return f"{found.verdict} {found.reason} instead of {expected}"
    pods = {address_of_pod(name, version): name for name in ("near", "far")}
    named = {pods[one.address.rpartition(":")[0].strip("[]")] for one in found.candidates}
    if found.verdict != "forward":
        return "" if not named or found.reason == "SOURCE_RANGE" else f"candidates: {named}"
    if named != expected.pods:
        return f"candidates: {named} instead of {expected}"
    chosen = pods[(found.backend or "").rpartition(":")[0].strip("[]")]
    masqueraded = found.source != asker.text
    if cell.client != "node" and masqueraded != (chosen in expected.as_node):
        return f"{chosen} sees {found.source} instead of {expected}"
    return ""


@pytest.mark.rule("VE-1", "VE-2", "VE-3", "VE-4", "VE-5", "VE-6", "VE-7", "VE-13", "VE-17")
def test_every_cell(
    chain: Chain, _kernels: Mapping[Family, Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ebpf_lb.cli.beyond.netfilter.read", list)
    wrong, port = {}, 1024
    for policy in POLICIES:
        for endpoints in ENDPOINTS:
            some = [cell for cell in cells() if cell[1::2] == (policy, endpoints)]
            chain.become(Situation(verdicts.objects(some[0]), THIS_NODE))
            for kernel in _kernels.values():
                view = View(kernel.build, kernel.family)
                for cell in some:
                    port += 1
                    if said := difference(view, cell, port):
                        wrong["-".join((*cell, view.family.directory))] = said
    assert not wrong


# by chance

CLUSTERS, QUESTIONS = times(16), 25
KINDS = {
    "forward": Kind.BACKENDS,
    "reject": Kind.REJECT,
    "drop": Kind.DROP,
    "pass": Kind.NOT_A_SERVICE,
}
ASKERS = {
    ClientKind.LOCAL_POD: question.Client.POD,
    ClientKind.NODE: question.Client.NODE,
    ClientKind.REMOTE_POD: question.Client.REMOTE,
    ClientKind.OUTSIDE: question.Client.REMOTE,
}


def disagreement(
    view: View, situation: Situation, client: Client, place: Destination, port: int
) -> str:
    """Between the oracle and what is said; "" if there is none."""
    expected = verdict(
        situation.objects.values(), situation.node, client, place,
        masquerade_all=situation.masquerade_all,
        pod_networks_known=situation.pod_networks_known,
        service_networks=situation.service_networks,
        departures=AS_BUILT,
    )  # fmt: skip
    asker = Asker(ASKERS[client.kind], parse_address(client.address), port)
    target = format_endpoint(parse_address(place.address), place.port)
    protocol = Protocol[place.protocol]
    found = explain_asker(view, asker, target, protocol, Cluster(None, wanted=False))
    if KINDS[found.verdict] is not expected.kind:
        return f"{found.verdict} ({found.reason}) instead of {expected}"
    if found.verdict != "forward":
        return ""
    named = {_place(one.address) for one in found.candidates}
    if named != expected.backends:
        return f"candidates: {named} instead of {expected}"
    masqueraded = found.source != asker.text
    if client.kind is not ClientKind.NODE and masqueraded != (
        _place(found.backend or "") in expected.masquerade
    ):
        return f"{found.backend} sees {found.source} instead of {expected}"
    return ""


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def test_clusters_by_chance(
    chain: Chain, _kernels: Mapping[Family, Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ebpf_lb.cli.beyond.netfilter.read", list)
    (seed, rng), situation, seen = seeded("explain"), NOTHING, set()
    for number in range(CLUSTERS):
        situation = after(situation, rng)
        chain.become(situation)
        views = {family: View(one.build, family) for family, one in _kernels.items()}
        places = destinations(situation)
        for _ in range(QUESTIONS):
            place = rng.choice(places)
            client = rng.choice(clients(place))
            view = views[Family(6 if ":" in place.address else 4)]
            said = disagreement(view, situation, client, place, rng.randrange(1024, 65536))
            assert not said, (seed, number, client, place, said)
            seen.add(client.kind)
    assert seen == set(ClientKind)
