"""The scenarios themselves are complete."""

import pytest
import yaml

from ebpf_lb.lab.objects.manifest import read_manifests
from ebpf_lb.lessons.scenarios import catalog
from ebpf_lb.lessons.scenarios.recording import Recording
from tests.unit.lessons_scenarios.recorded_frames import recorded

NAMES = catalog.names()


def test_what_the_lessons_must_be_about() -> None:
    assert set(NAMES) >= {
        "hostnames", "cross-node-snat", "etp-local", "etp-local-drop", "hairpin",
        "session-affinity",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_says_who_asks_whom(name: str) -> None:
    scenario = catalog.load(name)
    assert scenario.address in catalog.ADDRESSES
    assert scenario.outcome in catalog.OUTCOMES
    assert scenario.protocol in ("TCP", "UDP")
    assert scenario.node or scenario.address != "nodePort"
    assert 200 < len(scenario.lesson) < 900 and "\n" not in scenario.lesson


@pytest.mark.parametrize("name", NAMES)
def test_its_manifests_hold_what_it_names(name: str) -> None:
    scenario = catalog.load(name)
    items = [item for document in read_manifests([str(scenario.manifests)])
             for item in document.items]  # fmt: skip
    found = {(kind.name, object_["metadata"]["name"]) for kind, object_ in items}
    assert ("Service", scenario.service) in found
    kind, _, pod = scenario.client.partition("/")
    assert kind != "pod" or ("Pod", pod) in found
    nodes = {object_["spec"]["nodeName"] for kind, object_ in items if kind.name == "Pod"}
    used = nodes | ({scenario.node} if scenario.node else set())
    assert used <= {f"node{number}" for number in range(1, scenario.nodes + 1)}
    assert all("namespace" not in object_["metadata"] for _, object_ in items)


def test_an_unknown_one_is_said() -> None:
    with pytest.raises(catalog.NoSuchScenarioError, match="hairpin"):
        catalog.load("../hairpin")


def test_recordings_are_kept_whole() -> None:
    recording = recorded("etp-local-drop")
    assert Recording.from_json(yaml.safe_load(yaml.safe_dump(recording.to_json()))) == recording
