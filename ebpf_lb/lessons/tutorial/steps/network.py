"""Step 8: what lies between the nodes."""

from contextlib import ExitStack

from ebpf_lb.lab.names import UPLINK
from ebpf_lb.lessons.scenarios.frames import Packet
from ebpf_lb.lessons.scenarios.layers import layers
from ebpf_lb.lessons.scenarios.recording import Recording
from ebpf_lb.lessons.scenarios.way import Story, Tap
from ebpf_lb.lessons.tutorial.captured import Question, connect
from ebpf_lb.lessons.tutorial.stage import Stage, set_up

TITLE = "The CNI's part: what carries a Service's packets"
TEXT = (
    "A Service's packet is an ordinary one from pod to pod as soon as its destination is "
    "translated, and how it gets there is the CNI's affair: over the bridge of the node, by a "
    "route to the other node, or inside another packet. Small labs are made for the networks that "
    "this one does not have, and the same connection is captured on each."
)
NETWORKS = {
    "routes": (
        "Routes to the other nodes' pods (host-gw): the packet is on the wire as it is",
        "",
    ),
    "vxlan": (
        "VXLAN, as flannel has it: Ethernet in UDP, made by the kernel",
        "VXLAN",
    ),
    "udp": (
        "A tunnel by a process (flannel's first way): IP in UDP, by a tun device",
        "UDP",
    ),
}
_PODS = """
apiVersion: v1
kind: Pod
metadata: {name: asker}
spec:
  nodeName: node1
  containers: [{name: c, image: registry.k8s.io/e2e-test-images/agnhost:2.53}]
"""
_SERVED = """
---
apiVersion: v1
kind: Pod
metadata: {name: %(name)s, labels: {app: %(name)s}}
spec:
  nodeName: %(node)s
  containers:
    - name: c
      image: registry.k8s.io/e2e-test-images/agnhost:2.53
      args: [netexec]
      ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: %(name)s-svc}
spec:
  selector: {app: %(name)s}
  ports: [{port: 80, targetPort: 8080}]
"""


def act(stage: Stage) -> None:
    own = stage.lab.options.network
    with ExitStack() as stack:
        coming = stack.enter_context(stage.labs_beside([n for n in NETWORKS if n != own]))
        _show(stage, own, near=True)
        for network, lab in coming.items():
            place = stack.enter_context(set_up(lab(), "network", stage.out, type(stage)))
            place.told = stage.told  # one page for all
            _show(place, network)


def _show(stage: Stage, network: str, near: bool = False) -> None:
    title, tunnel = NETWORKS[network]
    stage.say(f"\n{title}.")
    served = (
        _SERVED % {"name": name, "node": n} for name, n in (("near", "node1"), ("far", "node2"))
    )
    stage.apply(_PODS + "".join(served))
    stage.ready_pods(3)
    if near:
        stage.say("\nTo a pod of the same node, it never leaves the node:")
        _, story = _connect(stage, "near", "On the same node")
        stage.check(not _on_the_wire(story), "it left the node")
    stage.say("\nTo a pod of another node:")
    recording, story = _connect(stage, "far", title)
    tap = _on_the_wire(story)
    if tap is None:
        stage.check(False, "it did not leave node1")
        return
    kind = tap.packet.tunnel.kind if tap.packet.tunnel else ""
    stage.check(kind == tunnel, f"it was on the wire {f'in {kind}' if kind else 'as it is'}")
    pod = stage.get("pods", "far")["status"]["podIP"]
    stage.check(tap.packet.destination.address == pod, "it is not translated on the wire")
    stage.say("\nThe frame by which it left node1:")
    stage.show("\n".join(map(str, layers(_frame(recording, tap)))))


def _connect(stage: Stage, name: str, title: str) -> tuple[Recording, Story]:
    question = Question(
        name=name,
        title=title,
        lesson="",
        client="pod/asker",
        service=f"{name}-svc",
        address="clusterIP",
        outcome="answered",
        place=stage.namespace,
    )
    recording, story = connect(stage, f"network-{stage.lab.options.network}-{name}", question)
    stage.check(story.backend == name, f"{story.backend or 'nobody'} has it")
    return recording, story


def _on_the_wire(story: Story) -> Tap | None:
    """The client's first packet, as it left the node of the client."""
    taps = story.first.taps if story.first else ()
    leaving = (tap for tap in taps if tap.machine == "node1" and tap.interface == UPLINK)
    return next((tap for tap in leaving if tap.outgoing), None)


def _frame(recording: Recording, tap: Tap) -> bytes:
    return next(
        frame.data
        for frame in recording.frames
        if (frame.machine, frame.interface, frame.outgoing) == tap.place
        and Packet.parse_frame(frame.data) == tap.packet
    )
