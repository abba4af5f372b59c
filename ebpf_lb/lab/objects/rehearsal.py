"""What the API server will say to manifests, before there is one: the same checks on a store in
memory."""

from collections.abc import Iterable, Sequence

from ebpf_lb.apiserver.bootstrap import create_defaults, make_registry
from ebpf_lb.apiserver.errors import StatusError
from ebpf_lb.apiserver.registry import refuse_unknown
from ebpf_lb.apiserver.store import Store
from ebpf_lb.lab.objects.apply import namespace_of, refused
from ebpf_lb.lab.objects.manifest import Document


def rehearse(
    documents: Iterable[Document],
    service_cidrs: Sequence[str],
    addresses: Sequence[str],
    port: int,
    namespace: str = "default",
) -> None:
    """Creates the objects, one after the other, in a cluster that only has these Services' networks
    and this API server. Raises ManifestError where the server would refuse one."""
    registry = make_registry(Store())
    create_defaults(registry, service_cidrs, addresses, port)
    for document in documents:
        for index, (kind, object_) in enumerate(document.items):
            place = namespace_of(kind, object_, namespace)
            try:
                registry.create(kind, place, object_, on_unknown=refuse_unknown)
            except StatusError as error:
                if error.reason == "AlreadyExists":  # `apply` will change it
                    continue
                causes = (error.details or {}).get("causes") or ()
                raise refused(document, index, error.message, causes) from None
