"""`python -m ebpf_lb.lab.kubelet NAME`: serves the lab of this name until it is ended."""

import logging
import sys

from ebpf_lb.lab.kubelet.loop import Kubelet
from ebpf_lb.lab.names import LabNames
from ebpf_lb.lab.objects.client import Client
from ebpf_lb.lab.state import State


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    [name] = sys.argv[1:]
    names = LabNames(name)
    Kubelet(names, State.load(names).options, Client(names.api_socket)).run()


if __name__ == "__main__":
    main()
