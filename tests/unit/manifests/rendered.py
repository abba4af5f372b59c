"""The manifests as a cluster would get them: by kustomize, and by Helm with the values that say the
same."""

import functools
from typing import Any

import yaml

from tests.support.tools import PROJECT, tool

SAME: dict[str, tuple[str, ...]] = {
    "base": (),
    "overlays/beside-kube-proxy": ("besideKubeProxy=true",),
    "overlays/host-routing": ("hostRouting=bpf",),
    "overlays/xdp": ("xdp=native",),
    "overlays/monitoring": ("monitoring.enabled=true",),
}
"""Each folder of `manifests`, and the chart's values that mean the same."""
ALONE = "cleanup"
"""The folder that is used when ebpf-lb is gone: not a part of the chart."""


@functools.cache
def by_kustomize(folder: str) -> tuple[dict[str, Any], ...]:
    return _objects(tool("kubectl", "kustomize", PROJECT / "manifests" / folder))


@functools.cache
def by_helm(*values: str, release: str = "kube-system") -> tuple[dict[str, Any], ...]:
    words = ["template", "ebpf-lb", PROJECT / "manifests/chart", "--namespace", release]
    for value in values:
        words += ["--set", value]
    return _objects(tool("helm", *words))


def _objects(text: str) -> tuple[dict[str, Any], ...]:
    return tuple(one for one in yaml.safe_load_all(text) if one)


def named(objects: tuple[dict[str, Any], ...]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["metadata"]["name"]): one for one in objects}
