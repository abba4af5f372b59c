"""`python -m ebpf_lb.lab.cloud NAME`: serves the lab of this name until it is ended. To be started
in the network namespace of its router."""

import logging
import sys

from ebpf_lb.lab.cloud.addresses import Pool
from ebpf_lb.lab.cloud.loop import Cloud
from ebpf_lb.lab.cloud.router import Router
from ebpf_lb.lab.names import LOAD_BALANCERS, OUTSIDE, PODS, SERVICES, UNDERLAY, LabNames
from ebpf_lb.lab.objects.client import Client
from ebpf_lb.lab.state import State


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    [name] = sys.argv[1:]
    names = LabNames(name)
    families = State.load(names).options.families
    pool = Pool(
        LOAD_BALANCERS.networks(families),
        tuple(
            network
            for segment in (UNDERLAY, OUTSIDE, PODS, SERVICES)
            for network in segment.networks(families)
        ),
    )
    Cloud(Client(names.api_socket), Router(), pool, names.cloud_socket).run()


if __name__ == "__main__":
    main()
