"""What the programs owe each packet: a load balancer in plain Python, which is told what they did
and says whether they might.

Where there is a choice (a backend of the set, a free port), whatever the programs chose is noted
and then expected for the rest of the flow. Frames are read and compared by tests.datapath.judge;
nothing is shared with the programs or the planner.
"""

from tests.datapath.reference.hooks import (
    HOOKS,
    INGRESS,
    LOOPBACK_OUT,
    POD_IN,
    POD_OUT,
    UPLINK_IN,
    UPLINK_OUT,
    Observed,
    Ruling,
)
from tests.datapath.reference.reference import Reference
from tests.datapath.reference.surroundings import Node, Route, Service

__all__ = [
    "HOOKS",
    "INGRESS",
    "LOOPBACK_OUT",
    "POD_IN",
    "POD_OUT",
    "UPLINK_IN",
    "UPLINK_OUT",
    "Node",
    "Observed",
    "Reference",
    "Route",
    "Ruling",
    "Service",
]
