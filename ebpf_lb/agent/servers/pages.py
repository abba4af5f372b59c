"""Which pages the agent serves, and on which of its two addresses; kube-proxy's paths."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from ebpf_lb.agent.config import Config
from ebpf_lb.agent.servers.healthz import Answer, Health, Starting
from ebpf_lb.agent.servers.http import Listening, Page, serve


class Probes:
    """What the kubelet and balancers ask, answered from the first moment."""

    def __init__(self, config: Config) -> None:
        self.health = Health(Starting("the programs to be loaded"), time.monotonic)
        pages = {
            "/healthz": _probe(self.health.healthz),
            "/livez": _probe(self.health.livez),
            "/readyz": _probe(self.health.readyz),
        }
        self.listening = serve(config.healthz_bind_address, pages, "healthz")


def serve_inquiries(
    config: Config,
    scrape: Callable[[], bytes],
    documents: Mapping[str, Callable[[], dict[str, Any]]],
    texts: Mapping[str, Callable[[], str]],
) -> Listening:
    """Metrics, and what people and tools ask. `scrape`: the metrics as Prometheus reads them;
    `documents`: JSON, and `texts`, by path. Forwarding does not depend on any of it."""
    pages = {
        "/metrics": lambda: Page(200, "text/plain; version=0.0.4; charset=utf-8", scrape()),
        **{path: _document(ask) for path, ask in documents.items()},
        **{path: _text(ask) for path, ask in texts.items()},
    }
    return serve(config.metrics_bind_address, pages, "metrics")


def _probe(ask: Callable[[], Answer]) -> Callable[[], Page]:
    def page() -> Page:
        answer = ask()
        return Page(answer.status, "application/json", answer.body.encode())

    return page


def _document(ask: Callable[[], dict[str, Any]]) -> Callable[[], Page]:
    return lambda: Page(200, "application/json", json.dumps(ask(), indent=1).encode())


def _text(ask: Callable[[], str]) -> Callable[[], Page]:
    return lambda: Page(200, "text/plain; charset=utf-8", ask().encode())
