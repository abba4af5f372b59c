"""What `explain` says is what every cell of tests/scenarios/verdicts.yaml says, and what the oracle
says of clusters made by chance, and what the same packet then gets; and it changes nothing."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from ebpf_lb.cli.cluster import Cluster
from ebpf_lb.cli.explain.command import explain_asker
from ebpf_lb.cli.explain.ends import Asker
from ebpf_lb.cli.explain.explanation import Explanation
from ebpf_lb.datapath import question
from ebpf_lb.datapath.dry_run import Sandbox
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.reader import View
from ebpf_lb.model.values import Family, Protocol, format_endpoint, parse_address
from tests.datapath.chain import Answer, Chain
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


PODS_SIDE, UPLINK = "cni0", "up0"  # of chain.node_network()


def roles(ifindex: int) -> str:
    """Whose programs would be at the interfaces of the chain's node."""
    names = {"lo": "loopback", PODS_SIDE: "pod", UPLINK: "uplink"}
    return names.get(socket.if_indextoname(ifindex), "") if ifindex else ""


def asker_of(client: question.Client, address: str, port: int) -> Asker:
    interfaces = {question.Client.POD: PODS_SIDE, question.Client.REMOTE: UPLINK}
    return Asker(client, parse_address(address), port, interfaces.get(client, ""))


def ask(sandbox: Sandbox, asker: Asker, place: tuple[str, int], protocol: Protocol) -> Explanation:
    target = format_endpoint(parse_address(place[0]), place[1])
    nobody = Cluster(None, wanted=False)
    return explain_asker(
        sandbox.view, asker, target, protocol, nobody, sandbox=sandbox, roles=roles
    )


@pytest.fixture
def sandboxes(
    chain: Chain, _kernels: Mapping[Family, Kernel], monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[Family, Sandbox]]:
    monkeypatch.setattr("ebpf_lb.cli.beyond.netfilter.read", list)
    with ExitStack() as opened:
        yield {
            family: opened.enter_context(Sandbox(View(kernel.build, family)))
            for family, kernel in _kernels.items()
        }


def written(kernel: Kernel) -> dict[str, int]:
    """All maps of the family and of the node, bit for bit, told by a hash of each. What is not
    written keeps its order."""
    found = {}
    for folder in (kernel.build.maps(kernel.family), kernel.build.maps(None)):
        for path in folder.iterdir():
            with Map.open(path) as table:
                found[path.name] = hash(tuple(table.chunks()))
    return found


def fresh(sandboxes: Mapping[Family, Sandbox]) -> None:
    """Names are read once a view; a situation brings others."""
    for family, sandbox in sandboxes.items():
        sandbox.view = View(sandbox.view.build, family)


def difference(sandbox: Sandbox, cell: Cell, port: int) -> str:
    """Between a cell and what is said of it; "" if there is none."""
    expected, version = cells()[cell], int(sandbox.view.family)
    asker = asker_of(WHO[cell.client], verdicts.client(cell, version), port)
    found = ask(sandbox, asker, verdicts.destination(cell, version), Protocol.TCP)
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
    chain: Chain, _kernels: Mapping[Family, Kernel], sandboxes: Mapping[Family, Sandbox]
) -> None:
    wrong, port = {}, 1024
    for policy in POLICIES:
        for endpoints in ENDPOINTS:
            some = [cell for cell in cells() if cell[1::2] == (policy, endpoints)]
            chain.become(Situation(verdicts.objects(some[0]), THIS_NODE))
            fresh(sandboxes)
            before = {family: written(kernel) for family, kernel in _kernels.items()}
            for sandbox in sandboxes.values():
                for cell in some:
                    port += 1
                    if said := difference(sandbox, cell, port):
                        wrong["-".join((*cell, sandbox.view.family.directory))] = said
            assert {family: written(kernel) for family, kernel in _kernels.items()} == before
    assert not wrong


# by chance

CLUSTERS, QUESTIONS = times(42), 25
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
    situation: Situation, client: Client, place: Destination, found: Explanation
) -> str:
    """Between the oracle and what is said; "" if there is none."""
    expected = verdict(
        situation.objects.values(), situation.node, client, place,
        masquerade_all=situation.masquerade_all,
        pod_networks_known=situation.pod_networks_known,
        service_networks=situation.service_networks,
        departures=AS_BUILT,
    )  # fmt: skip
    if KINDS[found.verdict] is not expected.kind:
        return f"{found.verdict} ({found.reason}) instead of {expected}"
    if found.verdict != "forward":
        return ""
    named = {_place(one.address) for one in found.candidates}
    if named != expected.backends:
        return f"candidates: {named} instead of {expected}"
    seen, asking = _place(found.source or ""), _place(found.client)
    if client.kind is not ClientKind.NODE and (seen[0] != asking[0]) != (
        _place(found.backend or "") in expected.masquerade
    ):
        return f"{found.backend} sees {found.source} instead of {expected}"
    return ""


def deviation(found: Explanation, got: Answer) -> str:
    """Of what was said from what the same packet then gets; "" if there is none."""
    if got.fault:
        return got.fault
    if KINDS[found.verdict] is not got.kind:
        return f"{found.verdict} ({found.reason}), but the packet got {got}"
    if found.verdict != "forward":
        return ""
    backend, (source, port) = _place(found.backend or ""), _place(found.source or "")
    own = _place(found.client)[1]
    # another port than the client's is drawn by lot
    if (backend, source, port == own) != (got.backend, got.source, got.source_port == own):
        return f"{found.backend} sees {found.source}, but the packet got {got}"
    return ""


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def test_clusters_by_chance(chain: Chain, sandboxes: Mapping[Family, Sandbox]) -> None:
    (seed, rng), situation, seen = seeded("explain"), NOTHING, set()
    for number in range(CLUSTERS):
        situation = after(situation, rng)
        chain.become(situation)
        fresh(sandboxes)
        places = destinations(situation)
        for _ in range(QUESTIONS):
            place = rng.choice(places)
            client = rng.choice(clients(place))
            sandbox = sandboxes[Family(6 if ":" in place.address else 4)]
            port = rng.randrange(1024, 65536)
            asker = asker_of(ASKERS[client.kind], client.address, port)
            found = ask(sandbox, asker, (place.address, place.port), Protocol[place.protocol])
            got = chain.send(client, place, port, xdp=False)
            said = disagreement(situation, client, place, found) or deviation(found, got)
            assert not said, (seed, number, client, place, port, said, got)
            seen.add(client.kind)
    assert seen == set(ClientKind)
