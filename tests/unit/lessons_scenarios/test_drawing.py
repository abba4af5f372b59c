"""Text and SVG of recorded connections."""

import itertools
import json
import re
from xml.etree import ElementTree

import pytest

from ebpf_lb.lessons.scenarios import catalog, svg, text, words
from ebpf_lb.lessons.scenarios.recording import Recording
from ebpf_lb.lessons.scenarios.way import Story, tell
from tests.unit.lessons_scenarios.recorded_frames import Made, recorded, syn

SVG = "{http://www.w3.org/2000/svg}"
RECORDED = [
    "cross-node-snat-ipv4",
    "cross-node-snat-ipv6",
    "etp-local-drop",
    "hairpin",
    "hostnames",
]


def scenario(name: str) -> catalog.Scenario:
    return catalog.load(name.removesuffix("-ipv4").removesuffix("-ipv6"))


def drawn(name: str) -> tuple[Story, ElementTree.Element]:
    story = tell(recorded(name))
    return story, ElementTree.fromstring(svg.render(scenario(name), story))


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("name", RECORDED)
def test_every_tap_stands_in_both(name: str) -> None:
    story, root = drawn(name)
    told = text.render(scenario(name), [story])
    for way in (story.first, story.answer):
        for number, tap in enumerate(way.taps if way else (), start=1):
            ends = (
                rf"{re.escape(str(tap.packet.source))} +→ {re.escape(str(tap.packet.destination))}"
            )
            assert re.search(rf"(?m)^ +{number}  {tap.machine} .* {ends}$", told)
    taps = [len(way.taps) for way in (story.first, story.answer) if way]
    numbers = [int(t) for t in texts(root) if t.isdigit()]
    assert sorted(numbers) == sorted(n for count in taps for n in range(1, count + 1))
    assert len(list(root.iter(f"{SVG}circle"))) == sum(taps)


def all_drawn() -> dict[str, ElementTree.Element]:
    """Of one connection, of several, and of two lessons beside each other."""
    stories = {name: tell(recorded(name)) for name in RECORDED}
    found = {name: svg.render(scenario(name), story) for name, story in stories.items()}
    found["several"] = svg.render(catalog.load("session-affinity"), *[stories["hostnames"]] * 6)
    pairs = [(scenario(name), stories[name]) for name in ("cross-node-snat-ipv4", "etp-local-drop")]
    found["beside"] = svg.render_beside(pairs)
    return {name: ElementTree.fromstring(text) for name, text in found.items()}


@pytest.mark.parametrize(("name", "root"), all_drawn().items())
def test_a_drawing_is_a_slide(name: str, root: ElementTree.Element) -> None:
    """In the shape of a screen, within its borders, letters for the back row, none on others."""
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert abs(width / height - 16 / 9) < 0.02
    stays_within_its_borders(root)
    sizes = {float(one.attrib["font-size"]) for one in root.iter(f"{SVG}text")}
    assert min(sizes) / height >= 1 / 60 and max(sizes) / height >= 1 / 30
    addresses = [
        one for one in root.iter(f"{SVG}text") if re.search(r"[\d\]]:\d{2,}$", one.text or "")
    ]
    assert min(float(one.attrib["font-size"]) for one in addresses) / height >= 1 / 45
    assert overlapping(root) == []


def overlapping(root: ElementTree.Element) -> list[tuple[str, str]]:
    """Texts of which one is written upon another."""
    boxes = {}
    for one in root.iter(f"{SVG}text"):
        text, size = (one.text or "").rstrip(), float(one.attrib["font-size"])
        mono = "Mono" in one.get("font-family", "")
        # other letters are narrower than those of one width, on average
        width = len(text) * size * (0.602 if mono else 0.55)
        x, y = float(one.attrib["x"]), float(one.attrib["y"])
        x -= {"start": 0.0, "middle": width / 2, "end": width}[one.get("text-anchor", "start")]
        # edges are drawn twice
        boxes[text, x, y] = (x, y - 0.75 * size, x + width, y + 0.2 * size)
    found = []
    for (one, box), (other, beside) in itertools.combinations(boxes.items(), 2):
        apart = box[2] <= beside[0] or beside[2] <= box[0] or box[3] <= beside[1]
        if not (apart or beside[3] <= box[1]):
            found.append((one[0], other[0]))
    return found


def test_what_is_written_upon_another_is_found() -> None:
    root = all_drawn()["hairpin"]
    one, other = [each for each in root.iter(f"{SVG}text") if each.text][:2]
    other.attrib.update(x=one.attrib["x"], y=one.attrib["y"])
    assert (one.text, other.text) in overlapping(root)


def test_rewritings_are_called_by_their_names() -> None:
    for name, root in all_drawn().items():
        said = " ".join(texts(root))
        assert ("DNAT" in said) == (name != "etp-local-drop"), name
        assert ("SNAT" in said) == (name in ("cross-node-snat-ipv4", "cross-node-snat-ipv6",
                                             "hairpin", "beside")), name  # fmt: skip
    told = text.render(catalog.load("cross-node-snat"), [tell(recorded("cross-node-snat-ipv4"))])
    found = re.findall(r"(source|destination) .*  ([SD]NAT(?: undone)?)$", told, re.MULTILINE)
    assert found == [
        ("source", "SNAT"), ("destination", "DNAT"),
        ("source", "DNAT undone"), ("destination", "SNAT undone"),
    ]  # fmt: skip


def test_request_and_answer_are_apart() -> None:
    """All that is written of the answer stands below all of the request."""
    for name in ("hairpin", "cross-node-snat-ipv4"):
        story, root = drawn(name)
        assert story.first and story.answer
        headings = [f"The {way}" for way in ("SYN, from", "answer, a SYN-ACK, from")]
        places = [
            float(one.attrib["y"])
            for heading in headings
            for one in root.iter(f"{SVG}text")
            if (one.text or "").startswith(heading)
        ]
        assert len(places) == 2 and places[0] < places[1]
        circles = [float(one.attrib["cy"]) for one in root.iter(f"{SVG}circle")]
        assert sum(y < places[1] for y in circles) == len(story.first.taps)


def test_several_connections_are_drawn_each() -> None:
    root = all_drawn()["several"]
    numbered = [one for one in texts(root) if re.fullmatch(r"Connection \d", one)]
    assert numbered == [f"Connection {number}" for number in range(1, 7)]
    assert any("All 6 connections were served by" in one for one in texts(root))


def test_lessons_beside_each_other() -> None:
    said = texts(all_drawn()["beside"])
    assert "cross-node-snat beside etp-local-drop" in said
    for name in ("cross-node-snat", "etp-local-drop"):
        assert f"{name}: the SYN" in said


def test_xdp_is_named() -> None:
    """Where a frame left without having been seen on its way in, only XDP can have sent it."""
    made = Made("172.30.0.12:30000")
    for place in ("client eth0 out", "router client in", "router node2 out", "router node2 in"):
        came_back = place == "router node2 in"
        ends = ("172.30.0.12:40000", "10.244.1.2:9376")
        sent = ("172.31.0.2:40000", "172.30.0.12:30000")
        made.at(place, syn(*(ends if came_back else sent)))
    story = tell(made.recording())
    assert "node2 rewrites at XDP" in svg.render(catalog.load("cross-node-snat"), story)
    assert "node2 rewrites at XDP" in text.render(catalog.load("cross-node-snat"), [story])


def test_names_that_a_deployment_gives_have_room() -> None:
    """web-5dd7d68bzd-fvgxj and the like are wider than any address."""
    kept = json.dumps(recorded("cross-node-snat-ipv4").to_json())
    renamed = kept.replace("web-1", "shop/hostnames-7c8v949v59-kk4fn")
    story = tell(Recording.from_json(json.loads(renamed)))
    root = ElementTree.fromstring(svg.render(catalog.load("cross-node-snat"), story))
    assert "pod hostnames-7c8v949v59-kk4fn" in texts(root)
    stays_within_its_borders(root)


def stays_within_its_borders(root: ElementTree.Element) -> None:
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for element in root.iter(f"{SVG}rect"):
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
        assert x >= 0 and y >= 0, ElementTree.tostring(element)
        assert x + float(element.attrib["width"]) <= width, ElementTree.tostring(element)
        assert y + float(element.attrib["height"]) <= height, ElementTree.tostring(element)
    for element in root.iter(f"{SVG}text"):
        assert 0 < float(element.attrib["x"]) < width
        assert 0 < float(element.attrib["y"]) < height


def test_the_drawing_in_the_readme_is_this_ones() -> None:
    """To renew it: `scenarios.svg.render` of this recording, or a run of the lesson."""
    shown = catalog.load("cross-node-snat").manifests.with_name("drawing.svg").read_text()
    story = tell(recorded("cross-node-snat-ipv4"))
    assert shown == svg.render(catalog.load("cross-node-snat"), story)


def test_each_machine_has_one_lane() -> None:
    _, root = drawn("cross-node-snat-ipv4")
    names = [t for t in texts(root) if re.fullmatch(r"client|router|node\d|pod web-1", t)]
    assert sorted(set(names)) == ["client", "node1", "node2", "pod web-1", "router"]


def test_rewritings_say_before_and_after() -> None:
    told = text.render(catalog.load("hostnames"), [tell(recorded("hostnames"))])
    assert re.search(
        r"└ node1 rewrites  destination  10\.96\.[\d.]+:80 → 10\.244\.\d\.\d+:9376", told
    )
    assert re.search(r"└ node1 rewrites  source +10\.244\.\d\.\d+:9376 → 10\.96\.[\d.]+:80", told)


def test_what_ends_at_a_nodes_own_address_did_not_arrive() -> None:
    """A NodePort's packet that the node cannot send on: nobody there was asked."""
    made = Made("172.30.0.12:30000")
    for place in ("client eth0 out", "node2 eth0 in"):
        made.at(place, syn("172.31.0.2:40000", "172.30.0.12:30000"))
    story = tell(made.recording())
    assert story.first is not None
    assert words.end(story, story.first).endswith("it ended in node2")
    assert story.backend == "" and words.remarks(story) == []


def test_an_end_on_the_way_is_marked_and_its_counter_named() -> None:
    story, root = drawn("etp-local-drop")
    told = text.render(catalog.load("etp-local-drop"), [story])
    assert "✕ it came in by eth0 of node2, and nobody saw it after that" in told
    assert "The programs of node2 counted meanwhile: NO_LOCAL_ENDPOINTS" in told
    assert "ended in node2" in " ".join(texts(root))


def test_the_client_that_a_pod_sees() -> None:
    snat = text.render(catalog.load("cross-node-snat"), [tell(recorded("cross-node-snat-ipv4"))])
    assert re.search(r"To web-1 the client was 172\.30\.0\.12:\d+, an address of node2\.", snat)
    kept = text.render(catalog.load("hostnames"), [tell(recorded("hostnames"))])
    assert re.search(r"To web-\d the client was 10\.244\.1\.\d+:\d+, its own address\.", kept)


def test_colour_only_adds_escapes() -> None:
    story = tell(recorded("hairpin"))
    plain = text.render(catalog.load("hairpin"), [story])
    colourful = text.render(catalog.load("hairpin"), [story], colour=True)
    assert "\033[" not in plain
    assert colourful != plain == re.sub(r"\033\[[\d;]*m", "", colourful)


def test_several_connections_are_listed() -> None:
    story = tell(recorded("hostnames"))
    told = text.render(catalog.load("session-affinity"), [story, story])
    assert "All 2 connections" in told
    assert len(re.findall(rf"served by {story.backend}", told)) == 2


def test_a_connection_of_which_nothing_was_seen() -> None:
    story = tell(Made("172.29.0.1:80").recording())
    assert "Nobody saw a packet of it." in text.render(catalog.load("etp-local"), [story])
    ElementTree.fromstring(svg.render(catalog.load("etp-local"), story))
