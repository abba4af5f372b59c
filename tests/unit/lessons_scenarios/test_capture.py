"""Where frames are captured while pods come and go."""

import os
import socket
from pathlib import Path

from ebpf_lb.lab import namespaces
from ebpf_lb.lessons.scenarios.capture import Capture
from tests.capabilities import NETNS, needs


@needs(NETNS)
def test_a_pod_that_has_ended_is_left_out(tmp_path: Path) -> None:
    """Its file may be there still, when its namespace is not mounted any more."""
    netns = Path(f"/run/netns/ebpflb-capture-{os.getpid()}")
    unmounted, gone = tmp_path / "unmounted", tmp_path / "gone"
    unmounted.touch()
    namespaces.create(netns)
    try:
        places = [("gone", gone), ("there", netns), ("unmounted", unmounted)]
        with Capture(places) as capture, namespaces.entered(netns):
            os.system("ip link set lo up")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"seen", ("127.0.0.1", 9))
            frames = capture.frames()
        assert {frame.machine for frame in frames} == {"there"}
        assert any(b"seen" in frame.data for frame in frames)
    finally:
        namespaces.remove(netns)
