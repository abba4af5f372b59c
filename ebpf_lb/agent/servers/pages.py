"""Which pages the agent serves, and on which of its two addresses; kube-proxy's paths."""

import json
from collections.abc import Callable
from typing import Any

from ebpf_lb.agent.config import Config
from ebpf_lb.agent.servers import http
from ebpf_lb.agent.servers.healthz import Answer, Health
from ebpf_lb.agent.servers.http import Page


def serve(
    config: Config,
    health: Health,
    scrape: Callable[[], bytes],
    status: Callable[[], dict[str, Any]],
    log: Any,
) -> None:
    """Starts both servers, as configured. `scrape`: the metrics as Prometheus reads them.

    A port already taken is reported; forwarding does not depend on it.
    """
    probes = {"/healthz": _probe(health.healthz), "/livez": _probe(health.livez)}
    inquiries = {
        "/healthz": lambda: _text("ok"),
        "/proxyMode": lambda: _text("ebpf"),
        "/metrics": lambda: Page(200, "text/plain; version=0.0.4; charset=utf-8", scrape()),
        "/status": lambda: Page(200, "application/json", json.dumps(status(), indent=1).encode()),
    }
    for name, address, pages in (
        ("healthz", config.healthz_bind_address, probes),
        ("metrics", config.metrics_bind_address, inquiries),
    ):
        if address is None:
            continue
        try:
            http.serve(address, pages, name)
        except OSError as error:
            log.error(
                "not served", what=name, address=f"{address[0]}:{address[1]}", error=error.strerror
            )


def _probe(ask: Callable[[], Answer]) -> Callable[[], Page]:
    def page() -> Page:
        answer = ask()
        return Page(answer.status, "application/json", answer.body.encode())

    return page


def _text(body: str) -> Page:
    return Page(200, "text/plain; charset=utf-8", body.encode())
