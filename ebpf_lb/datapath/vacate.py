"""Takes Services off what the node itself lives by, in all builds' pinned maps.

At the agent's start the maps say what an older agent wrote, and nothing is planned before the API
server was heard: an address of the server's own that is a frontend there would keep the agent away
from it for ever. The same where the server moves to such an address. So these entries go at once,
whatever they belong to; what the agent remembers of them is put right when it plans.
"""

from collections.abc import Iterable, Iterator

from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.datapath.reader import View
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Family, family_of, format_endpoint
from ebpf_lb.plan.node import LOOPBACK
from ebpf_lb.plan.reserved import API_SERVER, Reserved

# A pod is told the API server's own Service as its address: who uses that goes by its frontend.
_ITS_OWN_SERVICE = "default/kubernetes"
_FIRST = bytes(4)  # the only index of an array of one


# rule: CP-5
def vacate(pins: Pins, places: Iterable[Reserved]) -> list[str]:
    """Removes what keeps the node from these, and says so, a sentence each. OSError."""
    wanted = sorted(places)
    builds = sorted(pins.builds.iterdir()) if wanted and pins.builds.exists() else []
    said: dict[str, None] = {}  # builds may share their maps, and then their sentences
    for folder in builds:
        for family in Family:
            own = [place for place in wanted if family_of(place.address) is family]
            try:
                said.update((text, None) for text in _vacate(Build(folder), family, own))
            except UserError:
                continue  # the maps of a version that knew other layouts
    return list(said)


def _vacate(build: Build, family: Family, places: list[Reserved]) -> Iterator[str]:
    view = View(build, family)
    if view.map("frontends") is None:
        return
    for place in places:
        owner = _owner(view, place)
        if owner is not None and _is_its_own(owner):
            continue
        where = f"{format_endpoint(place.address, place.port)}/{place.protocol.name}"
        if owner is not None:
            _delete(build, view, _key(view, place.address, place.port, place.protocol))
            yield f"{where} belonged to Service {owner}, but {place.what} is there."
        if place.what != API_SERVER or _has_its_own(view, place.address):
            continue
        if _delete(build, view, _key(view, place.address, 0, 0)):
            yield f"{where} was refused, as an unused port of a ClusterIP: {place.what} is there."
        if _leave_out(build, view, place.address):
            yield f"{where} was dropped, as of a ServiceCIDR: {place.what} is there."


def _owner(view: View, place: Reserved) -> str | None:
    frontends = view.map("frontends")
    assert frontends is not None
    found = frontends.lookup(_key(view, place.address, place.port, place.protocol))
    if found is None:
        return None
    number: int = view.layout.struct("frontend").unpack(found).service_id
    return view.service(number) or ""


def _is_its_own(service: str) -> bool:
    return service.partition(":")[0] == _ITS_OWN_SERVICE


def _has_its_own(view: View, address: bytes) -> bool:
    """Whether it is an address of the API server's own Service, by whatever port."""
    return any(
        key.address == address and _is_its_own(view.service(value.service_id) or "")
        for key, value in view.rows("frontends")
    )


def _key(view: View, address: bytes, port: int, protocol: int) -> bytes:
    key = view.layout.struct("frontend_key").pack(address=address, port=port, protocol=protocol)
    if address in LOOPBACK:
        return key[:-1] + bytes([view.layout.defines["FRONTEND_PAD_LOCALHOST"]])
    return key


def _delete(build: Build, view: View, key: bytes) -> bool:
    with Map.open(build.maps(view.family) / "frontends") as frontends:
        return frontends.delete(key)


def _leave_out(build: Build, view: View, address: bytes) -> bool:
    """Of the networks whose unused addresses are dropped, those that hold this one."""
    held = view.element("service_networks", 0)
    if held is None:
        return False
    wanted = int.from_bytes(address)
    left = [
        one
        for one in held.entry
        if any(one.mask) and (wanted ^ int.from_bytes(one.prefix)) & int.from_bytes(one.mask)
    ]
    if len(left) == sum(any(one.mask) for one in held.entry):
        return False
    pack = view.layout.struct("service_network").pack
    value = b"".join(pack(prefix=one.prefix, mask=one.mask) for one in left)
    whole = view.layout.struct("service_networks").size
    with Map.open(build.maps(view.family) / "service_networks") as table:
        table.update(_FIRST, value.ljust(whole, b"\0"))
    return True
