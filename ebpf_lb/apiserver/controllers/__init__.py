"""What turns wishes into objects: Deployment -> Pods, Service + Pods -> EndpointSlices, …

Each controller is level-triggered: a change marks keys as dirty, and `reconcile` compares what is
stored with what should be, whatever led there.
"""

import asyncio

from ebpf_lb.apiserver.controllers.base import Controller
from ebpf_lb.apiserver.controllers.deployment import DeploymentController
from ebpf_lb.apiserver.controllers.endpoints import EndpointsController
from ebpf_lb.apiserver.controllers.endpointslice import EndpointSliceController
from ebpf_lb.apiserver.controllers.garbage import GarbageCollector
from ebpf_lb.apiserver.controllers.mirroring import MirroringController
from ebpf_lb.apiserver.controllers.namespace import NamespaceController
from ebpf_lb.apiserver.controllers.scheduler import Scheduler
from ebpf_lb.apiserver.controllers.statefulset import StatefulSetController
from ebpf_lb.apiserver.registry import Registry

CONTROLLERS: tuple[type[Controller], ...] = (
    NamespaceController,
    GarbageCollector,
    DeploymentController,
    StatefulSetController,
    Scheduler,
    EndpointSliceController,
    EndpointsController,
    MirroringController,
)


def start_controllers(registry: Registry) -> list[asyncio.Task[None]]:
    """Starts them all on the running loop; they end when their tasks are cancelled."""
    controllers = [controller(registry) for controller in CONTROLLERS]
    return [
        asyncio.create_task(controller.run(), name=type(controller).__name__)
        for controller in controllers
    ]
