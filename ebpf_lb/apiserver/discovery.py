"""What the server tells about itself: versions, groups, resources."""

from typing import Any

from ebpf_lb.apiserver.kinds import KINDS, Has, Kind

_VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.0-ebpf-lb-lab",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux",
}
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def document(path: str) -> dict[str, Any] | None:
    """The discovery document of a path; None if it is not one of discovery's."""
    match path.strip("/").split("/"):
        case ["version"]:
            return _VERSION
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(g) for g in _groups()],
            }
        case ["api", "v1"]:
            return _resources("", "v1")
        case ["apis", group] if group in _groups():
            return {"kind": "APIGroup", "apiVersion": "v1"} | _group(group)
        case ["apis", group, version] if group in _groups():
            return _resources(group, version)
    return None


def _groups() -> list[str]:
    return sorted({kind.group for kind in KINDS if kind.group})


def _group(group: str) -> dict[str, Any]:
    versions = [
        {"groupVersion": api_version, "version": api_version.rpartition("/")[2]}
        for api_version in sorted({kind.api_version for kind in KINDS if kind.group == group})
    ]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _resources(group: str, version: str) -> dict[str, Any] | None:
    kinds = [kind for kind in KINDS if (kind.group, kind.version) == (group, version)]
    if not kinds:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": kinds[0].api_version,
        "resources": [resource for kind in kinds for resource in _kind_resources(kind)],
    }


def _kind_resources(kind: Kind) -> list[dict[str, Any]]:
    common = {"namespaced": kind.namespaced, "singularName": ""}
    main: dict[str, Any] = common | {
        "name": kind.plural,
        "singularName": kind.name.lower(),
        "kind": kind.name,
        "verbs": _VERBS,
    }
    if kind.short:
        main["shortNames"] = [kind.short]
    if Has.PLACE_IN_ALL in kind.has:
        main["categories"] = ["all"]
    parts = [main]
    verbs = ["get", "patch", "update"]
    if Has.STATUS in kind.has:
        parts.append(common | {"name": f"{kind.plural}/status", "kind": kind.name, "verbs": verbs})
    if Has.SCALE in kind.has:
        scale = {"name": f"{kind.plural}/scale", "kind": "Scale", "verbs": verbs}
        parts.append(common | scale | {"group": "autoscaling", "version": "v1"})
    return parts
