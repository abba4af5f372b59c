"""Manifests, good and bad."""

import io
import json
from pathlib import Path

import pytest

from ebpf_lb.apiserver.kinds import DEPLOYMENT, SERVICE
from ebpf_lb.lab.objects.manifest import ManifestError, read_manifests

WEB = """\
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  ports:
    - port: 80
"""


def read(tmp_path: Path, text: str, name: str = "web.yaml") -> list[list[tuple[str, str]]]:
    path = tmp_path / name
    path.write_text(text)
    return [
        [(kind.name, object_["metadata"]["name"]) for kind, object_ in document.items]
        for document in read_manifests([str(path)])
    ]


def test_several_documents(tmp_path: Path) -> None:
    text = f"---\n{WEB}---\n# nothing here\n---\n{WEB.replace('web', 'db')}"
    assert read(tmp_path, text) == [[("Service", "web")], [("Service", "db")]]


def test_json_and_lists(tmp_path: Path) -> None:
    item = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    other = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}
    both = json.dumps({"apiVersion": "v1", "kind": "List", "items": [item, other]})
    assert read(tmp_path, both, "a.json") == [[("Service", "web"), ("Deployment", "web")]]
    assert read(tmp_path, json.dumps(item), "a.yaml") == [[("Service", "web")]]


def test_folders_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.yaml").write_text(WEB)
    (tmp_path / "a.yml").write_text(WEB.replace("web", "db"))
    (tmp_path / "notes.txt").write_text("not a manifest")
    monkeypatch.setattr("sys.stdin", io.StringIO(WEB.replace("web", "typed")))
    found = [d.items[0] for d in read_manifests([str(tmp_path), "-"])]
    assert [object_["metadata"]["name"] for _, object_ in found] == ["db", "web", "typed"]
    assert {kind for kind, _ in found} == {SERVICE}


def test_dates_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(WEB.replace("name: web", "name: web\n  annotations: {since: 2026-01-01}"))
    (document,) = read_manifests([str(path)])
    assert document.items[0][1]["metadata"]["annotations"] == {"since": "2026-01-01"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (WEB.replace("80", "http"), "document 1: spec.ports[0].port: must be a whole number"),
        (WEB + "---\n" + WEB.replace("name: web", "name: 5"), "document 2: metadata.name: must be"),
        (WEB.replace("- port: 80", "port: 80"), "document 1: spec.ports: must be a list"),
        (WEB.replace("spec:", "spec: []\nx:"), "document 1: spec: must be an object"),
        (WEB + "  ports: []\n", "document 1: is not YAML: field 'ports' is given twice (line 8)"),
        (WEB.replace("kind: Service", ""), "document 1: kind: is missing"),
        (WEB.replace("apiVersion: v1", ""), "document 1: apiVersion: is missing"),
        (WEB.replace("Service", "CronJob"), "document 1: kind: the lab has no 'CronJob'"),
        (WEB.replace("v1", "v2"), "document 1: apiVersion: 'v2' has no Service: write v1"),
        (WEB.replace("name: web", "labels: {}"), "document 1: metadata.name: is missing"),
        ("just a word", "document 1: is not an object"),
        ("a: [", "document 1: is not YAML"),
        ("kind: List\nitems: 5", "document 1: items: must be a list"),
        ("kind: List\nitems: [{kind: Service}]", "document 1: items[0].apiVersion: is missing"),
        ("", "no object in"),
    ],
)
def test_bad_ones(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, text)
    assert problem in str(caught.value)
    assert "web.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"missing.yaml: cannot be read: No such file"):
        read_manifests([str(tmp_path / "missing.yaml")])


def test_the_example_is_good() -> None:
    path = Path(__file__).parents[3] / "manifests/examples/hostnames.yaml"
    kinds = [document.items[0][0] for document in read_manifests([str(path)])]
    assert kinds == [DEPLOYMENT, SERVICE]
