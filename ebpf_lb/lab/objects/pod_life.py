"""The steps of a pod's life that people ask for by hand."""

from datetime import UTC, datetime

from ebpf_lb.apiserver.kinds import POD
from ebpf_lb.lab.objects.client import STRATEGIC, Client

# Longer than any pod's own grace period, which tells the lab's kubelet to keep the pod serving.
_HOLD_S = 365 * 24 * 3600


class PodLife:
    """One pod. All methods raise ApiError (404) if there is none of that name."""

    def __init__(self, client: Client, namespace: str, name: str) -> None:
        self._client = client
        self._path = POD.path(namespace, name)

    def set_ready(self, ready: bool) -> None:
        """As if its readiness probe had changed its mind."""
        condition = {
            "status": "True" if ready else "False",
            "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        conditions = [{"type": name} | condition for name in ("ContainersReady", "Ready")]
        self._client.patch(
            f"{self._path}/status", {"status": {"conditions": conditions}}, STRATEGIC
        )

    def terminate(self) -> None:
        """Terminating, and serving until `remove`."""
        self._client.delete(self._path, grace_period_s=_HOLD_S)

    def remove(self) -> None:
        """Gone at once, as by `kubectl delete --force --grace-period=0`."""
        self._client.delete(self._path, grace_period_s=0)
