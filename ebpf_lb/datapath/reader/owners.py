"""Whose connection a flow is.

A flow outlives its Service, and has nothing of it but its number, which is given to another one
later. So a flow is the Service's of that number only if what it asked is a frontend of that one.
"""

from ebpf_lb.datapath.reader.flows import Entry
from ebpf_lb.datapath.reader.services import frontends
from ebpf_lb.datapath.reader.view import View


class Owners:
    """Of one family's flows, by the frontends as they are now."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._frontends = {
            (one.address, one.port, one.protocol): one.service_id for one in frontends(view)
        }

    def service(self, entry: Entry) -> str | None:
        """namespace/name:port; None where it is nobody's any more, or never was a Service's."""
        word = entry.word
        asked = (entry.vip, entry.vip_port, word.protocol)
        if not word.service_id or self._frontends.get(asked) != word.service_id:
            return None
        return self._view.service(word.service_id)
