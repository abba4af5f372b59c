"""Endpoints made by hand for a Service without a selector -> EndpointSlices.

Upstream: pkg/controller/endpointslicemirroring. One slice for each subset and family.
"""

from ebpf_lb.apiserver.controllers.base import Controller
from ebpf_lb.apiserver.controllers.endpointslice import MANAGED_BY, SERVICE_NAME
from ebpf_lb.apiserver.controllers.pods import owner_reference
from ebpf_lb.apiserver.kinds import ENDPOINT_SLICE, ENDPOINTS, SERVICE
from ebpf_lb.apiserver.store import Change, Json, Stored
from ebpf_lb.apiserver.validation import ip_family

_CONTROLLER = "endpointslicemirroring-controller.k8s.io"
_SKIP = "endpointslice.kubernetes.io/skip-mirror"


class MirroringController(Controller):
    def observe(self, change: Change) -> None:
        subject = change.subject
        if subject.kind in (ENDPOINTS, SERVICE):
            self.enqueue((subject.namespace, subject.name))

    def reconcile(self, key: tuple[str, str]) -> None:
        endpoints, service = self.store.get(ENDPOINTS, *key), self.store.get(SERVICE, *key)
        old = [
            slice_
            for slice_ in self.store.objects(ENDPOINT_SLICE, key[0])
            if slice_.labels.get(SERVICE_NAME) == key[1]
            and slice_.labels.get(MANAGED_BY) == _CONTROLLER
        ]
        wanted: list[Json] = []
        if (
            endpoints
            and service
            and not service.spec.get("selector")
            and endpoints.labels.get(_SKIP) != "true"
        ):
            wanted = _slices(endpoints)
        # By content: what is there already stays, whatever its name.
        for slice_ in old:
            content = {
                field: slice_.object.get(field) for field in ("addressType", "endpoints", "ports")
            }
            if content in wanted:
                wanted.remove(content)
            else:
                self.registry.delete(ENDPOINT_SLICE, slice_.namespace, slice_.name)
        for content in wanted:
            assert endpoints is not None, "nothing is wanted without"
            metadata: Json = {
                "generateName": f"{key[1]}-",
                "labels": {SERVICE_NAME: key[1], MANAGED_BY: _CONTROLLER},
                "ownerReferences": [owner_reference(endpoints)],
            }
            self.registry.create(ENDPOINT_SLICE, key[0], {"metadata": metadata} | content)


def _slices(endpoints: Stored) -> list[Json]:
    slices = []
    for subset in endpoints.object.get("subsets", ()):
        ports = [
            {"name": port.get("name", ""), "protocol": port["protocol"], "port": port["port"]}
            for port in subset.get("ports", ())
        ]
        for family in ("IPv4", "IPv6"):
            mirrored = [
                _endpoint(address, group == "addresses")
                for group in ("addresses", "notReadyAddresses")
                for address in subset.get(group, ())
                if ip_family(address["ip"]) == family
            ]
            if mirrored:
                slices.append(
                    {"addressType": family, "endpoints": mirrored, "ports": ports or None}
                )
    return slices


def _endpoint(address: Json, ready: bool) -> Json:
    endpoint: Json = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for field in ("hostname", "nodeName", "targetRef"):
        if field in address:
            endpoint[field] = address[field]
    return endpoint
