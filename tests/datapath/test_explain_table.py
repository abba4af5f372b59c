"""What `explain` says is what every cell of tests/scenarios/verdicts.yaml says, and what the oracle
says of clusters made by chance, and what the same packet then gets; and it changes nothing."""

import errno
import itertools
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from ebpf_lb.cli.cluster import Cluster
from ebpf_lb.cli.explain.command import explain_asker
from ebpf_lb.cli.explain.ends import Asker
from ebpf_lb.cli.explain.explanation import Explanation
from ebpf_lb.cli.explain.way import Hooks
from ebpf_lb.datapath import question
from ebpf_lb.datapath.attach.cgroup import attach_cgroup, remove_link
from ebpf_lb.datapath.dry_run import Sandbox
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.reader import View
from ebpf_lb.lab import cgroups
from ebpf_lb.model.values import (
    Family,
    Protocol,
    format_address,
    format_endpoint,
    parse_address,
)
from tests.capabilities import CGROUP2, DATAPATH, needs
from tests.datapath import wires
from tests.datapath.chain import Answer, Chain
from tests.datapath.kernel import NODE, Kernel
from tests.datapath.mutation import seeded
from tests.oracle.oracle import AS_BUILT, Client, ClientKind, Destination, Kind, verdict
from tests.oracle.situations import NOTHING, Situation, after, clients, destinations
from tests.scenarios import verdicts
from tests.scenarios.test_by_oracle import THIS_NODE
from tests.scenarios.verdicts import ENDPOINTS, POLICIES, Cell, address_of_pod, cells
from tests.support.chance import times

pytestmark = needs(*DATAPATH, CGROUP2)

WORDS = {"forward": "answered", "reject": "refused", "drop": "dropped"}
WHO = {
    "pod": question.Client.POD,
    "node": question.Client.NODE,
    "pod elsewhere": question.Client.REMOTE,
    "outside": question.Client.REMOTE,
}


SO_COOKIE, SO_NETNS_COOKIE = 57, 71
PODS_SIDE, UPLINK = "cni0", "up0"  # of chain.node_network()


def roles(ifindex: int) -> str:
    """Whose programs would be at the interfaces of the chain's node."""
    names = {"lo": "loopback", PODS_SIDE: "pod", UPLINK: "uplink"}
    return names.get(socket.if_indextoname(ifindex), "") if ifindex else ""


AT_TC = Hooks(roles, lambda ifindex: False, False)
ALSO_XDP = AT_TC._replace(xdp=lambda ifindex: True)
ALSO_SOCKETS = AT_TC._replace(sockets=True)


def asker_of(client: question.Client, address: str, port: int) -> Asker:
    interfaces = {question.Client.POD: PODS_SIDE, question.Client.REMOTE: UPLINK}
    return Asker(client, parse_address(address), port, interfaces.get(client, ""))


def ask(
    sandbox: Sandbox,
    asker: Asker,
    place: tuple[str, int],
    protocol: Protocol,
    hooks: Hooks = AT_TC,
) -> Explanation:
    target = format_endpoint(parse_address(place[0]), place[1])
    nobody = Cluster(None, wanted=False)
    found = explain_asker(
        sandbox.view, asker, target, protocol, nobody, sandbox=sandbox, hooks=hooks
    )
    assert not any("were not run" in one for one in found.beyond), found.beyond
    return found


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


def difference(sandbox: Sandbox, cell: Cell, port: int, hooks: Hooks) -> str:
    """Between a cell and what is said of it; "" if there is none."""
    expected, version = cells()[cell], int(sandbox.view.family)
    asker = asker_of(WHO[cell.client], verdicts.client(cell, version), port)
    found = ask(sandbox, asker, verdicts.destination(cell, version), Protocol.TCP, hooks)
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
                    # where others' programs come first, and where there are none but TC's
                    for hooks in (AT_TC, ALSO_SOCKETS if cell.client == "node" else ALSO_XDP):
                        port += 1
                        if said := difference(sandbox, cell, port, hooks):
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


class OwnSockets:
    """The node's own, real ones, in its network and in a cgroup with the real programs; what those
    leave to TC is sent as a packet."""

    def __init__(self, chain: Chain, links: Path, group: Path) -> None:
        self._chain = chain
        attach_cgroup(next(iter(chain.kernels.values())).build, links, group)
        self._sockets: dict[tuple[int, int], list[socket.socket]] = {}
        self._group = group
        self.cookie = socket_number(socket.socket(), SO_NETNS_COOKIE)

    def are_the_nodes(self, situation: Situation) -> None:
        for writer in self._chain.writers.values():
            writer.set_config(self.cookie, situation.masquerade_all, 0)

    def send(self, client: Client, place: Destination, port: int) -> Answer:
        family = Family(6 if ":" in place.address else 4)
        with self._socket(family, place.protocol) as one:
            one.setblocking(False)
            try:
                one.connect((place.address, place.port))
            except ConnectionRefusedError:
                return Answer(Kind.REJECT)
            except OSError as error:  # on its way, or without one
                assert error.errno in (errno.EINPROGRESS, errno.ENETUNREACH, errno.EHOSTUNREACH)
            backend = self._backend(family, socket_number(one, SO_COOKIE))
        if backend is None:
            return self._chain.send(client, place, port, xdp=False)
        return Answer(Kind.BACKENDS, backend)

    def _backend(self, family: Family, cookie: int) -> tuple[str, int] | None:
        kernel = self._chain.kernels[family]
        unpack = kernel.layout.map("sockets").key.unpack
        hears = kernel.layout.enum("socket_entry")["SOCKET_HEARS"]
        with kernel.open("sockets") as table:
            for key in map(unpack, table.keys()):
                if (key.cookie, key.entry) == (cookie, hears):
                    return format_address(bytes(key.address)), key.port
        return None

    def _socket(self, family: Family, protocol: str) -> socket.socket:
        """Made in the cgroup by a child, many at once."""
        kind = (
            socket.AF_INET if family is Family.IPV4 else socket.AF_INET6,
            socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM,
        )
        if not self._sockets.get(kind):
            self._sockets[kind] = sockets_in(self._group, *kind)
        return self._sockets[kind].pop()

    def close(self) -> None:
        for one in itertools.chain.from_iterable(self._sockets.values()):
            one.close()


def socket_number(one: socket.socket, option: int) -> int:
    return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, option, 8), "little")


def sockets_in(group: Path, family: int, kind: int, number: int = 32) -> list[socket.socket]:
    """A socket stays in the cgroup that it was made in."""
    mine, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        cgroups.join(group)
        made = [socket.socket(family, kind) for _ in range(number)]
        socket.send_fds(theirs, [b"!"], [one.fileno() for one in made])
        os._exit(0)
    theirs.close()
    with mine:
        _, found, _, _ = socket.recv_fds(mine, 1, number)
    os.waitpid(child, 0)
    return [socket.socket(fileno=one) for one in found]


@pytest.fixture
def own(chain: Chain, tmp_path: Path, loaded_root: Path) -> Iterator[OwnSockets]:
    links = loaded_root / "links-of-explain"
    with wires.cgroup("explain") as group:
        made = OwnSockets(chain, links, group)
        try:
            yield made
        finally:
            made.close()
            for pin in links.iterdir():
                remove_link(pin)
            links.rmdir()


def deviation(found: Explanation, got: Answer) -> str:
    """Of what was said from what the same packet then gets; "" if there is none."""
    if got.fault:
        return got.fault
    if KINDS[found.verdict] is not got.kind:
        return f"{found.verdict} ({found.reason}), but the packet got {got}"
    if found.verdict != "forward":
        return ""
    if got.source == "":  # by a socket, which chooses by its own number
        return "" if got.backend in {_place(one.address) for one in found.candidates} else str(got)
    backend, (source, port) = _place(found.backend or ""), _place(found.source or "")
    own = _place(found.client)[1]
    # another port than the client's is drawn by lot
    if (backend, source, port == own) != (got.backend, got.source, got.source_port == own):
        return f"{found.backend} sees {found.source}, but the packet got {got}"
    return ""


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def test_clusters_by_chance(
    chain: Chain, sandboxes: Mapping[Family, Sandbox], own: OwnSockets
) -> None:
    (seed, rng), situation, seen, at_sockets, by_xdp = seeded("explain"), NOTHING, set(), 0, 0
    for number in range(CLUSTERS):
        situation = after(situation, rng)
        chain.become(situation)
        own.are_the_nodes(situation)
        fresh(sandboxes)
        places = destinations(situation)
        for _ in range(QUESTIONS):
            place = rng.choice(places)
            client = rng.choice(clients(place))
            sandbox = sandboxes[Family(6 if ":" in place.address else 4)]
            port = rng.randrange(1024, 65536)
            at_socket = client.kind is ClientKind.NODE and place.protocol != "SCTP"
            if at_socket:  # where it has no address yet, the node's preferred one stands for it
                client = Client(ClientKind.NODE, NODE[sandbox.view.family])
            asker = asker_of(ASKERS[client.kind], client.address, port)
            protocol, whom = Protocol[place.protocol], (place.address, place.port)
            if at_socket:
                found = ask(sandbox, asker, whom, protocol, ALSO_SOCKETS)
                got = own.send(client, place, port)
                at_sockets += got.kind is Kind.BACKENDS
            else:
                xdp = rng.random() < 0.5
                found = ask(sandbox, asker, whom, protocol, ALSO_XDP if xdp else AT_TC)
                got = chain.send(client, place, port, xdp=xdp)
                by_xdp += any(step.at.endswith("XDP") for step in found.back)
            said = disagreement(situation, client, place, found) or deviation(found, got)
            assert not said, (seed, number, client, place, port, said, got)
            seen.add(client.kind)
    assert seen == set(ClientKind)
    assert at_sockets and by_xdp
