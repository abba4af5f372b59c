"""Says in the log when a Service port loses its last usable endpoint, and when it has one again."""

from collections.abc import Mapping
from typing import Any

from ebpf_lb.agent.programming.refusals import Part
from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import Forwarding, ServicePortName


class UsableEndpoints:
    """How many each Service port has. `log`: structlog's."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._numbers: Mapping[Family, dict[ServicePortName, int]] = {
            family: {} for family in Family
        }

    def note(self, forwarding: Forwarding) -> None:
        """What is planned of a Service port. The first time nothing is said."""
        numbers = self._numbers[forwarding.family]
        cluster, local = forwarding.cluster, forwarding.local
        now = len({*cluster, *local}) if cluster and local else len(cluster or local)
        before = numbers.get(forwarding.name)
        numbers[forwarding.name] = now
        if before is not None and (not before) != (not now):
            self._log.info(
                "usable endpoints",
                service=str(forwarding.name),
                family=forwarding.family.directory,
                before=before,
                now=now,
            )

    def forget(self, part: Part) -> None:
        self._numbers[part.family].pop(part.name, None)
