"""What a click changes. Each takes the JSON that the page sent, and refuses what is not there."""

import threading
from collections.abc import Callable
from typing import Any

from ebpf_lb.apiserver.kinds import DEPLOYMENT
from ebpf_lb.errors import UserError
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.objects.pod_life import PodLife
from ebpf_lb.lessons.web import routes

Json = dict[str, Any]
_REPLICAS_MAX = 50
_agents = threading.Lock()


class BadRequestError(UserError):
    """What the page sent is not what was asked for."""


def word(asked: Json, key: str) -> str:
    value = asked.get(key)
    if not isinstance(value, str) or not value:
        raise BadRequestError(f"{key} must be a name")
    return value


def number(asked: Json, key: str, largest: int) -> int:
    value = asked.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise BadRequestError(f"{key} must be a number from 0 to {largest}")
    return value


def yes_or_no(asked: Json, key: str) -> bool:
    value = asked.get(key)
    if not isinstance(value, bool):
        raise BadRequestError(f"{key} must be true or false")
    return value


def scale(lab: Lab, asked: Json) -> None:
    path = DEPLOYMENT.path(word(asked, "namespace"), word(asked, "name"))
    replicas = number(asked, "replicas", _REPLICAS_MAX)
    lab.client.patch(f"{path}/scale", {"spec": {"replicas": replicas}})


def ready(lab: Lab, asked: Json) -> None:
    life = PodLife(lab.client, word(asked, "namespace"), word(asked, "name"))
    life.set_ready(yes_or_no(asked, "ready"))


def agent(lab: Lab, asked: Json) -> None:
    """Stops it, or starts it and waits until it serves; of several clicks one after the other."""
    node, runs = word(asked, "node"), yes_or_no(asked, "runs")
    with _agents:
        if runs:
            lab.start_agent(node)
            lab.wait_for_agents(only=node)
        else:
            lab.stop_agent(node)


def route(lab: Lab, asked: Json) -> None:
    node, other = lab.node(word(asked, "node")), lab.node(word(asked, "to"))
    if node == other:
        raise BadRequestError("a node's route to its own pods cannot be broken")
    routes.switch(lab, node, other, works=yes_or_no(asked, "works"))


ACTIONS: dict[str, Callable[[Lab, Json], None]] = {
    "scale": scale,
    "ready": ready,
    "agent": agent,
    "route": route,
}
