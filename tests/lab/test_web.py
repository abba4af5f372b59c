"""`ebpf-lb lab web`, looked at by a real browser: what it shows of the tests' lab, what a click
does there, and whom it refuses."""

import http.client
import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest

from ebpf_lb.lab.cluster import Lab
from tests.capabilities import BROWSER, LAB, needs
from tests.lab.conftest import EBPF_LB, Room
from tests.lab.test_outside import until
from tests.support.browser import Browser, Page
from tests.support.manifests import deployment, service

pytestmark = needs(*LAB, BROWSER)


@dataclass(frozen=True)
class Server:
    """The command while it runs."""

    url: str

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, str]:
        """headers: with _ for -; an empty one is left out. Default: those of the page itself."""
        link = urlsplit(self.url)
        given = {"Authorization": f"Bearer {link.fragment}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(link.netloc, timeout=60)
        method, content = ("GET", None) if body is None else ("POST", json.dumps(body))
        wanted = {name: value for name, value in given.items() if value}
        connection.request(method, path, content, wanted)
        response = connection.getresponse()
        answer = response.status, response.read().decode()
        connection.close()
        return answer


class Box(NamedTuple):
    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: "Box") -> bool:
        apart_x = self.x + self.width <= other.x or other.x + other.width <= self.x
        apart_y = self.y + self.height <= other.y or other.y + other.height <= self.y
        return not (apart_x or apart_y)

    def within(self, other: "Box") -> bool:
        return (
            other.x <= self.x
            and other.y <= self.y
            and self.x + self.width <= other.x + other.width
            and self.y + self.height <= other.y + other.height
        )


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[Server]:
    process = subprocess.Popen(
        [EBPF_LB, "lab", "web", "--name", lab.name, "--port", "0"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/#\S+", process.stdout.readline())
        assert found is not None
        yield Server(found[0])
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def page(server: Server, shared_room: Room) -> Iterator[Page]:
    """Of Service `web`, whose pods are on node1."""
    shared_room.apply(
        deployment("web", node="node1"),
        service("web", type="LoadBalancer"),
        service("web-sctp", app="web", protocols=("SCTP",), type="NodePort"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "elsewhere", "namespace": shared_room.namespace},
            "spec": {"type": "ExternalName", "externalName": "www.example.org"},
        },
    )
    with Browser() as browser:
        opened = browser.open(server.url)
        opened.choose("#service", f"{shared_room.namespace}/web")
        yield opened
        assert opened.errors == []


@pytest.fixture
def pods(page: Page, shared_room: Room) -> str:
    """What selects the room's pods in the drawing."""
    return f'[data-pod^="{shared_room.namespace}/web"]'


def rewritings(page: Page, way: str) -> list[list[str]]:
    items = f"[...document.querySelectorAll('#story .{way} li')]"
    found: list[list[str]] = page.run(f"{items}.map(e => [e.dataset.rewriting, e.dataset.machine])")
    return found


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("NodePort of node2", "172.30.0.12:"),
        ("NodePort of node2", "[fd30::c]:"),
        ("external address at node2", "172.29.0."),
    ],
)
def test_a_cross_node_snat_is_captured_and_drawn(
    page: Page, lab: Lab, kind: str, address: str
) -> None:
    routes = lab.routes()  # others use this lab, too, and may have pinned some
    page.choose("#client", "client")
    page.choose("#target", f"{kind} {address}")
    title = "document.querySelector('#story h2')?.textContent"

    def answered() -> bool:
        page.run("document.getElementById('story').replaceChildren()")
        page.click("#send:not(:disabled)")
        page.wait(f"{title} || !document.getElementById('error').hidden")
        return bool(page.run("document.querySelector('#story .good') !== null"))

    until(answered, f"the {kind} does not answer")
    assert rewritings(page, "request") == [["DNAT", "node2"], ["SNAT", "node2"]]
    assert rewritings(page, "answer") == [["SNAT undone", "node2"], ["DNAT undone", "node2"]]
    # each by a hook, and what looked into the stacks for it is gone
    said = page.run("[...document.querySelectorAll('#story .hook')].map(e => e.textContent)")
    assert len(said) == 4
    assert all(re.search(r"TC (ingress|egress) of eth0|XDP", one) for one in said), said
    pinned_before = {one for one, way in routes.items() if way["pinned"]}
    assert {one for one, way in lab.routes().items() if way["pinned"]} <= pinned_before
    assert "lesson_capture" not in lab.exec("node2", ["nft", "list", "tables"]).stdout
    # drawn, too: by both nodes and the router to the pod, and as arrows from tap to tap
    badges = "[...document.querySelectorAll('[data-badge]')].map(e => e.dataset.badge)"
    assert page.run(badges) == ["DNAT + SNAT", "SNAT + DNAT undone"]
    assert page.run("document.querySelectorAll('#map [data-story] path').length") == 2
    page.click("#show-way")
    drawn = page.wait("document.querySelector('#way:not([hidden]) > svg')?.textContent")
    assert "node2 rewrites" in drawn and address in drawn
    page.click("#show-map")


def test_an_association_is_captured_and_drawn(page: Page, shared_room: Room) -> None:
    """SCTP, where the kernel has it and where it has not."""
    page.choose("#service", f"{shared_room.namespace}/web-sctp")
    page.choose("#client", "client")
    page.choose("#target", "NodePort of node2 172.30.0.12:")

    def answered() -> bool:
        page.run("document.getElementById('story').replaceChildren()")
        page.click("#send:not(:disabled)")
        page.wait("document.querySelector('#story h2, #error:not([hidden])') !== null")
        return bool(page.run("document.querySelector('#story .good') !== null"))

    until(answered, "there is no answer by SCTP")
    headings = page.run("[...document.querySelectorAll('#story h3')].map(e => e.textContent)")
    assert [heading.partition(",")[0] for heading in headings] == ["The INIT", "The answer"]
    assert rewritings(page, "request") == [["DNAT", "node2"], ["SNAT", "node2"]]
    assert rewritings(page, "answer") == [["SNAT undone", "node2"], ["DNAT undone", "node2"]]
    page.choose("#service", f"{shared_room.namespace}/web")


def test_a_name_for_something_elsewhere_has_no_endpoints(page: Page, shared_room: Room) -> None:
    card = f"document.querySelector('[data-service=\"{shared_room.namespace}/elsewhere\"]')"
    shown = page.wait(f"{card}?.textContent")
    assert "→ www.example.org" in shown and "ExternalName" in shown and "0/0" not in shown


@pytest.mark.parametrize(
    ("nodes", "pods", "services", "clients"),
    [(1, 0, 0, 1), (1, 9, 1, 1), (3, 7, 4, 2), (5, 40, 9, 4), (9, 25, 30, 7)],
)
def test_nothing_overlaps(page: Page, nodes: int, pods: int, services: int, clients: int) -> None:
    """In labs of all sizes: what stands beside each other, and pods within their nodes."""
    scene = {
        "nodes": [{"name": f"node{n}"} for n in range(nodes)],
        "pods": [{"id": f"pod{n}", "node": f"node{n * n % nodes}"} for n in range(pods)],
        "services": [{"id": f"service{n}"} for n in range(services)],
        "clients": [{"name": f"client{n}"} for n in range(clients)],
    }
    placed = page.run(
        f"""import("/static/layout.js").then(({{WIDTH, place}}) => {{
            const {{height, services, nodes, pods, machines}} = place({json.dumps(scene)});
            const box = ([id, b]) => [id, b.x, b.y, b.width, b.height];
            const boxes = (places) => [...places].map(box);
            return {{
                whole: [0, 0, WIDTH, height], pods: boxes(pods),
                beside: [services, nodes, machines].flatMap(boxes),
            }};
        }})"""
    )
    places = {name: Box(*box) for name, *box in placed["beside"] + placed["pods"]}
    assert len(places) == nodes + pods + services + clients + 1
    beside = [places[name] for name, *_ in placed["beside"]]
    assert all(box.within(Box(*placed["whole"])) for box in beside)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(beside, 2))
    own = [places[pod["id"]] for pod in scene["pods"]]
    assert all(places[pod["id"]].within(places[pod["node"]]) for pod in scene["pods"])
    assert not any(a.overlaps(b) for a, b in itertools.combinations(own, 2))


def test_the_drawing_follows_a_deployment(page: Page, shared_room: Room, pods: str) -> None:
    """Scaled by a click there, and by somebody else."""
    ready = f"document.querySelectorAll('{pods}[data-state=ready]').length"
    page.wait(f"{ready} === 1")
    own = f'[data-deployment="{shared_room.namespace}/web"]'
    page.click(f"{own} button[aria-label^='one pod more']")
    page.wait(f"{ready} === 2")
    path = f"/apis/apps/v1/namespaces/{shared_room.namespace}/deployments/web/scale"
    shared_room.lab.client.patch(path, {"spec": {"replicas": 1}})
    page.wait(f"document.querySelectorAll('{pods}').length === 1")


def test_a_pod_is_made_unready(page: Page, shared_room: Room, pods: str) -> None:
    card = f'[data-service="{shared_room.namespace}/web"]'
    page.wait(f"document.querySelector('{card}').textContent.includes('1/1')")
    page.click(pods)
    page.click("#ready")
    page.wait(f"document.querySelector('{pods}').dataset.state === 'not ready'")
    page.wait(f"document.querySelector('{card}').textContent.includes('0/1')")
    page.click("#ready")
    page.wait(f"document.querySelector('{card}').textContent.includes('1/1')")


def test_an_agent_is_stopped_and_started(page: Page, lab: Lab) -> None:
    page.click('[data-node="node3"]')
    try:
        page.click("#agent")
        page.wait("document.querySelector('[data-node=node3]').dataset.agent === 'none'")
        assert lab.agent_process("node3") is None
        page.click("#agent")
        page.wait("document.querySelector('[data-node=node3]').dataset.agent === 'healthy'")
    finally:
        lab.start_agent("node3")
        lab.wait_for_agents(only="node3")


def refusals(said: list[tuple[int, str]]) -> list[str]:
    return [text for status, text in said if status != 200]


def test_clicks_twice_and_at_once_do_no_harm(
    page: Page, server: Server, lab: Lab, shared_room: Room
) -> None:
    """Each is done once; of those that contradict each other one is the last. What is asked
    meanwhile is answered, also by a node without an agent: its programs go on."""
    node = {"node": "node3"}
    way = {**node, "to": "node1"}
    deployment = {"namespace": shared_room.namespace, "name": "web"}
    [address] = lab.node("node3").addresses[:1]
    web = lab.client.get(f"/api/v1/namespaces/{shared_room.namespace}/services/web")
    request = {"client": "client", "service": "web", "address": address, "protocol": "TCP",
               "port": web["spec"]["ports"][0]["nodePort"]}  # fmt: skip
    with ThreadPoolExecutor(8) as clicks:

        def at_once(*asked: tuple[str, dict[str, Any]]) -> list[tuple[int, str]]:
            return list(clicks.map(lambda one: server.ask(f"/api/{one[0]}", one[1]), asked))

        try:
            stop, start = ("agent", node | {"runs": False}), ("agent", node | {"runs": True})
            scaled = [("scale", deployment | {"replicas": number}) for number in (2, 2, 1)]
            said = at_once(stop, stop, *scaled, ("request", request), stop)
            assert refusals(said) == []
            assert json.loads(said[5][1])["answered"] and lab.agent_process("node3") is None
            said = at_once(start, start, start)
            assert refusals(said) == []
            assert lab.agent_healthy("node3")
        finally:
            lab.start_agent("node3")
            lab.wait_for_agents(only="node3")
        broken, mended = ("route", way | {"works": False}), ("route", way | {"works": True})
        try:
            said = at_once(broken, broken, broken) + at_once(mended, broken, mended)
            assert refusals(said) == []
        finally:
            assert server.ask("/api/route", way | {"works": True})[0] == 200
    for family in ("-4", "-6"):
        rules = lab.exec("node3", ["ip", family, "rule", "show"]).stdout
        assert "blackhole" not in rules
    server.ask("/api/scale", deployment | {"replicas": 1})


def test_a_route_is_broken_and_mended(page: Page, lab: Lab) -> None:
    """The kernel says so, in both families."""
    pods_of_node1 = ("10.244.1.1", "fd00:10:244:1::1")

    def reached() -> list[bool]:
        gets = [lab.exec("node3", ["ip", "route", "get", to]) for to in pods_of_node1]
        return [done.returncode == 0 for done in gets]

    page.click('[data-node="node3"]')
    assert reached() == [True, True]
    page.click('[data-route="node1"]')
    page.wait("document.querySelector('[data-node=node3]').textContent.includes('no route to')")
    broken = reached()
    page.click('[data-route="node1"]')
    page.wait("!document.querySelector('[data-node=node3]').textContent.includes('no route to')")
    assert broken == [False, False]
    assert reached() == [True, True]


def test_pictures_are_saved(page: Page) -> None:
    """Documents that stand by themselves."""
    saved = """new Promise((done) => {
        const made = URL.createObjectURL;
        URL.createObjectURL = (blob) => {
            if (blob.type !== TYPE) return made.call(URL, blob);
            URL.createObjectURL = made;
            new Response(blob).arrayBuffer().then((b) => done([...new Uint8Array(b)]));
            return made.call(URL, blob);
        };
        document.querySelector(BUTTON).click();
    })"""

    def save(kind: str, button: str) -> bytes:
        script = saved.replace("TYPE", f"'{kind}'").replace("BUTTON", f"'{button}'")
        return bytes(page.run(script))

    root = ElementTree.fromstring(save("image/svg+xml", "#save-svg"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("width") and "node1" in "".join(root.itertext())
    image = save("image/png", "#save-png")
    assert image.startswith(b"\x89PNG") and len(image) > 10_000


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Authorization": ""},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_other_sites_and_strangers_are_refused(server: Server, headers: dict[str, str]) -> None:
    """Before anything is looked at: the Deployment is not there either."""
    body = {"namespace": "default", "name": "nothing", "replicas": 1}
    assert server.ask("/api/scale", body)[0] == 400
    assert server.ask("/api/scale", body, **headers)[0] == 403
    assert server.ask("/api/scenes", **headers)[0] == 403


def test_nobody_else_may_show_the_page_or_add_to_it(server: Server) -> None:
    link = urlsplit(server.url)
    connection = http.client.HTTPConnection(link.netloc, timeout=60)
    connection.request("GET", "/")
    response = connection.getresponse()
    policy = response.headers["Content-Security-Policy"]
    connection.close()
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy


def test_what_cannot_be_done_is_said_in_a_sentence(server: Server) -> None:
    for path, body, sentence in (
        ("route", {"node": "node1", "to": "node1", "works": False}, "its own pods"),
        ("agent", {"node": "node9", "runs": False}, "node9"),
        ("scale", {"namespace": "default", "name": "x", "replicas": -1}, "replicas must be"),
        ("request", {"client": "nobody", "address": "::1", "port": 1, "protocol": "TCP",
                     "service": "x"}, "no host or running pod"),
        ("request", [], "must be a JSON object"),
    ):  # fmt: skip
        status, answer = server.ask(f"/api/{path}", body)
        assert (status, sentence in json.loads(answer)["error"]) == (400, True), answer


def test_a_port_that_is_taken_is_explained(server: Server, lab: Lab) -> None:
    port = str(urlsplit(server.url).port)
    done = subprocess.run(
        [EBPF_LB, "lab", "web", "--name", lab.name, "--port", port],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"port {port} cannot be used" in done.stderr and "--port" in done.stderr
