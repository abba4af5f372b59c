"""What the kubelet tells the API server about a pod. Merge patches for the status subresource."""

from datetime import UTC, datetime
from typing import Any

from ebpf_lb.lab.pods import Pod

Object = dict[str, Any]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def running(manifest: Object, pod: Pod, host_addresses: tuple[str, ...], ready: bool) -> Object:
    """The pod runs and has these addresses; whether it takes traffic is `ready`."""
    since = now()
    return {
        "status": {
            "phase": "Running",
            "reason": None,  # of an earlier failure
            "message": None,
            "startTime": since,
            "hostIP": host_addresses[0],
            "hostIPs": [{"ip": address} for address in host_addresses],
            "podIP": pod.addresses[0],
            "podIPs": [{"ip": address} for address in pod.addresses],
            "conditions": _conditions(manifest, ready, since),
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container.get("image", ""),
                    "imageID": "",
                    "containerID": f"lab://{pod.pid}",
                    "ready": ready,
                    "started": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": since}},
                }
                for container in manifest["spec"].get("containers", [])
            ],
        }
    }


def failed(manifest: Object, message: str) -> Object:
    """The pod could not be started."""
    return {
        "status": {
            "phase": "Pending",
            "reason": "CreatePodSandboxError",
            "message": message,
            "conditions": _conditions(manifest, False, now()),
        }
    }


def _conditions(manifest: Object, ready: bool, since: str) -> list[Object]:
    """All of a pod's conditions: a merge patch replaces the whole list. Readiness gates are kept
    and waited for, as the kubelet does."""
    gates = {gate["conditionType"] for gate in manifest["spec"].get("readinessGates") or []}
    known = manifest.get("status", {}).get("conditions") or []
    kept = [condition for condition in known if condition["type"] in gates]
    open_gates = {c["type"] for c in kept if c["status"] == "True"}
    states = {
        "PodScheduled": True,
        "Initialized": True,
        "ContainersReady": ready,
        "Ready": ready and gates <= open_gates,
    }
    return kept + [
        {"type": kind, "status": str(state), "lastProbeTime": None, "lastTransitionTime": since}
        for kind, state in states.items()
    ]
