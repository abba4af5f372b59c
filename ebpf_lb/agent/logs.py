"""Structured logs on standard error: one line an event, JSON for machines, plain for people."""

import logging
import sys
from typing import Any

import structlog

# not before: it imports structlog
from ebpf_lb.agent.log_budget import LogBudget


def configure(level: str, form: str) -> Any:
    """`form`: json, console, or auto, which is console on a terminal and JSON elsewhere. Returns
    the logger."""
    people = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        LogBudget(),
        _order,
    ]
    last: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)]
        if people
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    )
    structlog.configure(
        processors=shared + last,
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # libraries of ours complain through the standard library: urllib3 about each failed attempt
    logging.basicConfig(level=logging.CRITICAL)
    return structlog.get_logger()


def _order(logger: Any, method: str, event: Any) -> Any:
    """What people look for first comes first."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return {**first, **event}
