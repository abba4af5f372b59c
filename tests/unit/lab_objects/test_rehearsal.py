"""What `lab up -f` finds out before anything is built."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ebpf_lb.lab.objects.manifest import ManifestError, read_manifests
from ebpf_lb.lab.objects.rehearsal import rehearse

Json = dict[str, Any]
EXAMPLES = Path(__file__).parents[3] / "manifests/examples"


def service(name: str = "web", **spec: Any) -> Json:
    spec = {"ports": [{"port": 80}]} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def check(folder: Path, *objects: Json) -> None:
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    rehearse(read_manifests([str(path)]), ["10.96.0.0/16"], ["172.30.0.10"], 6443)


@pytest.mark.parametrize(
    ("objects", "problem"),
    [
        ([service(), service("b", ports=[{"port": 70000}])], "document 2: spec.ports[0].port: Inv"),
        (
            [service("a", type="NodePort", ports=[{"port": 80, "nodePort": 30080}]),
             service("b", type="NodePort", ports=[{"port": 80, "nodePort": 30080}])],
            "document 2: spec.ports[0].nodePort: Invalid value: 30080: provided port is already",
        ),
        ([service(clusterIP="192.0.2.1")], "document 1: spec.clusterIPs"),
        ([service() | {"metadata": {"name": "web", "namespace": "nowhere"}}],
         'document 1: namespaces "nowhere" not found'),
        ([{"apiVersion": "v1", "kind": "List", "items": [service(), service("UPPER")]}],
         "document 1: items[1].metadata.name: Invalid value"),
    ],
)  # fmt: skip
def test_what_the_server_would_refuse(tmp_path: Path, objects: list[Json], problem: str) -> None:
    with pytest.raises(ManifestError) as caught:
        check(tmp_path, *objects)
    assert problem in str(caught.value)


def test_what_is_good(tmp_path: Path) -> None:
    home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "own"}}
    guest = service() | {"metadata": {"name": "web", "namespace": "own"}}
    check(tmp_path, home, guest, service(), service())
    rehearse(read_manifests([str(EXAMPLES)]), ["10.96.0.0/16"], ["172.30.0.10"], 6443)
