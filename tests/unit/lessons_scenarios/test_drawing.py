"""Text and SVG of recorded connections."""

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


@pytest.mark.parametrize("name", RECORDED)
def test_the_svg_stays_within_its_borders(name: str) -> None:
    _, root = drawn(name)
    stays_within_its_borders(root)


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
