"""What lies beyond us on a packet's way and can be asked: routes, neighbours, filters, limits, and
whether an echo comes back."""

from ebpf_lb.cli.beyond.finding import Finding
from ebpf_lb.cli.beyond.route import Route, route_to

__all__ = ["Finding", "Route", "route_to"]
