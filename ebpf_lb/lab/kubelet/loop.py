"""Makes what runs follow what the API server says: list, then watch, then list again when the watch
is lost. Pods that come together are started together."""

import http.client
import logging
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from ebpf_lb.errors import UserError
from ebpf_lb.lab import namespaces
from ebpf_lb.lab.kubelet import manifest, sandbox, status
from ebpf_lb.lab.names import LabNames
from ebpf_lb.lab.objects.client import ApiError, Client, best_effort
from ebpf_lb.lab.objects.follow import News, follow_each, taken
from ebpf_lb.lab.options import Options
from ebpf_lb.lab.pods import Pod

log = logging.getLogger("kubelet")

_PODS = "/api/v1/pods"
_START_AGAIN_S = 2

Object = dict[str, Any]
_Failures = (UserError, OSError, NetlinkError)


@dataclass(slots=True)
class _Timed:
    """Something to be done for a pod later; it yields when to do it again, or None."""

    due: float  # time.monotonic()
    action: Callable[[], float | None]


class Kubelet:
    """`run` returns never. One thread does everything but waiting for events."""

    def __init__(self, names: LabNames, options: Options, client: Client):
        self._client = client
        self._nodes = {node.name: sandbox.Node(node, options) for node in names.nodes(options)}
        self._running: dict[str, Pod] = {}  # by uid
        self._timed: dict[str, _Timed] = {}  # by uid
        self._events: queue.Queue[News] = queue.Queue()

    def run(self) -> None:
        follow_each(self._client, [_PODS], lambda _, news: self._events.put(news))
        while True:
            due = min((timed.due for timed in self._timed.values()), default=None)
            self._handle(taken(self._events, due))
            self._do_timed()

    # --- the working thread

    def _handle(self, events: list[News]) -> None:
        starting: list[tuple[Object, sandbox.Starting]] = []
        for event in events:
            if isinstance(event, list):
                wanted = event
                uids = {listed["metadata"]["uid"] for listed in event}
                gone = {*self._running, *self._timed} - uids
            elif event["type"] == "DELETED":
                wanted, gone = [], {event["object"]["metadata"]["uid"]}
            else:
                wanted, gone = [event["object"]], set()
            for uid in gone:
                starting = [(m, s) for m, s in starting if not _dismiss(s, uid)]
                self._forget(uid)
            for manifest_ in wanted:
                if started := self._sync(manifest_):
                    starting.append((manifest_, started))
        for manifest_, started in starting:
            self._finish_start(manifest_, started)

    def _sync(self, manifest_: Object) -> sandbox.Starting | None:
        """Starts the pod if it should run and does not."""
        metadata, spec = manifest_["metadata"], manifest_["spec"]
        uid, node = metadata["uid"], self._nodes.get(spec.get("nodeName", ""))
        if node is None or manifest_.get("status", {}).get("phase") in ("Failed", "Succeeded"):
            return None
        if "deletionTimestamp" in metadata:
            self._schedule_end(manifest_)
            return None
        if uid in self._running or uid in self._timed:  # runs, or is to be tried again
            return None
        try:
            started = node.start(manifest_, self._services(metadata["namespace"]))
        except _Failures as error:
            self._report_failure(manifest_, error)
            return None
        self._running[uid] = started.pod
        return started

    def _services(self, namespace: str) -> list[Object]:
        """Those that a new pod's environment tells of, the namespace's own last: they win."""
        kubernetes = self._client.get("/api/v1/namespaces/default/services/kubernetes")
        listed = self._client.get(f"/api/v1/namespaces/{namespace}/services")["items"]
        return [kubernetes, *listed]

    def _finish_start(self, manifest_: Object, starting: sandbox.Starting) -> None:
        pod = starting.pod
        try:
            sandbox.wait_until_serving(starting)
        except UserError as error:
            self._report_failure(manifest_, error)
            return
        probe = manifest.readiness_probe(manifest_)
        log.info(
            "%s/%s runs on %s: %s", pod.namespace, pod.name, pod.node, ", ".join(pod.addresses)
        )
        self._report(manifest_, pod, ready=probe is None)
        if probe is not None:
            self._timed[pod.uid] = _Timed(
                time.monotonic() + probe.initial_delay_s,
                lambda: self._probe(manifest_, pod, probe),
            )

    def _forget(self, uid: str) -> None:
        """The pod is no more: ends it if it runs, and whatever was to be done for it later."""
        self._timed.pop(uid, None)
        if pod := self._running.pop(uid, None):
            self._stop(pod)

    def _stop(self, pod: Pod) -> None:
        try:
            self._nodes[pod.node].stop(pod)
            log.info("%s/%s is gone", pod.namespace, pod.name)
        except _Failures as error:
            log.error("%s/%s does not go: %s", pod.namespace, pod.name, error)

    # --- reports

    def _report(self, manifest_: Object, pod: Pod, ready: bool) -> None:
        addresses = self._nodes[pod.node].names.addresses
        self._patch(manifest_, status.running(manifest_, pod, addresses, ready))

    def _report_failure(self, manifest_: Object, error: Exception) -> None:
        metadata = manifest_["metadata"]
        log.error("%s/%s: %s", metadata["namespace"], metadata["name"], error)
        self._patch(manifest_, status.failed(manifest_, str(error)))
        self._timed[metadata["uid"]] = _Timed(
            time.monotonic() + _START_AGAIN_S, lambda: self._start_again(manifest_)
        )

    def _patch(self, manifest_: Object, patch: Object) -> None:
        """The uid in the patch makes sure that a later pod of the same name is not meant."""
        patch = {"metadata": {"uid": manifest_["metadata"]["uid"]}, **patch}
        with best_effort(log, _path(manifest_)):
            self._client.patch(_path(manifest_) + "/status", patch)

    # --- what happens later

    def _do_timed(self) -> None:
        for uid, timed in list(self._timed.items()):
            if timed.due > time.monotonic():
                continue
            after_s = timed.action()
            if self._timed.get(uid) is timed:
                if after_s is None:
                    del self._timed[uid]
                else:
                    timed.due = time.monotonic() + after_s

    def _probe(self, manifest_: Object, pod: Pod, probe: manifest.Probe) -> float | None:
        """Until it succeeds for the first time; from then on, `lab pod` has the say."""
        if not _succeeds(pod, probe):
            return probe.period_s
        self._report(manifest_, pod, ready=True)
        return None

    def _start_again(self, manifest_: Object) -> float | None:
        self._forget(manifest_["metadata"]["uid"])
        self._handle([{"type": "MODIFIED", "object": manifest_}])
        return None

    def _schedule_end(self, manifest_: Object) -> None:
        """A terminating pod goes on serving for a while, but never beyond its grace period."""
        metadata = manifest_["metadata"]
        deadline = datetime.fromisoformat(metadata["deletionTimestamp"]).timestamp()
        asked = deadline - metadata.get("deletionGracePeriodSeconds", 0)
        end = asked + manifest.serves_on_s(manifest_)
        self._timed[metadata["uid"]] = _Timed(
            time.monotonic() + max(0.0, end - time.time()), lambda: self._end(manifest_)
        )

    def _end(self, manifest_: Object) -> float | None:
        """Ends a pod and says so, upon which the API server lets go of it."""
        uid = manifest_["metadata"]["uid"]
        if pod := self._running.pop(uid, None):
            self._stop(pod)
        try:
            self._client.delete(_path(manifest_), grace_period_s=0, uid=uid)
        except ApiError as error:
            if error.status not in (404, 409):
                log.error("%s: %s", _path(manifest_), error)
        except (OSError, http.client.HTTPException) as error:
            log.error("%s: %s", _path(manifest_), error)
            self._timed[uid] = _Timed(time.monotonic() + 1, lambda: self._end(manifest_))
        return None


def _path(manifest_: Object) -> str:
    metadata = manifest_["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def _dismiss(starting: sandbox.Starting, uid: str) -> bool:
    """Whether it is this pod that starts; then nobody waits for it any more."""
    if starting.pod.uid != uid:
        return False
    starting.dismiss()
    return True


def _succeeds(pod: Pod, probe: manifest.Probe) -> bool:
    """Asks from inside the pod's namespace, as its node could from outside."""
    with namespaces.entered(pod.netns):
        address = "127.0.0.1"
        connection = http.client.HTTPConnection(address, probe.port, timeout=1)
        try:
            connection.connect()
            if probe.path is None:
                return True
            connection.request("GET", probe.path)
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
