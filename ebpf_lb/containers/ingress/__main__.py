"""`python -m ebpf_lb.containers.ingress`: the ingress controller as a process, in a pod's network
namespace. It follows the API server by the lab's local socket."""

import argparse
import logging
import os
from pathlib import Path

from ebpf_lb.containers.ingress.controller import Controller
from ebpf_lb.containers.ingress.nginx import Nginx
from ebpf_lb.errors import UserError
from ebpf_lb.lab.objects.client import Client


def main() -> None:
    parser = argparse.ArgumentParser(prog="ingress", description=__doc__)
    parser.add_argument("--api", type=Path, required=True, help="the API server's local socket")
    parser.add_argument("--dir", type=Path, required=True, help="nginx's folder")
    parser.add_argument("--publish-service", required=True, metavar="NAMESPACE/NAME")
    parser.add_argument("--ready-fd", type=int, help="where to write a byte once nginx serves")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")

    def serving() -> None:
        if options.ready_fd is not None:
            os.write(options.ready_fd, b"\n")
            os.close(options.ready_fd)

    try:
        nginx = Nginx(options.dir)
        Controller(Client(options.api), nginx, options.publish_service).run(serving)
    except UserError as error:
        raise SystemExit(f"ingress: {error}") from None


if __name__ == "__main__":
    main()
