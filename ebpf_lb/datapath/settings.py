"""Settings that programs and maps are loaded with: capacities, time-outs, and which programs.

Everything else is in the `config` map or in the agent. A change here makes a new build; nothing is
compiled for it.
"""

from dataclasses import dataclass

CHOSEN_ELSEWHERE = ("host_routing", "xdp", "xdp_generic")
"""Fields that follow from keys of the agent's configuration of their own."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Capacities are entries a family; time-outs are idle times in seconds.

    flows: connections; masqueraded ones take two. Rounded up to a power of two.
    frontends: addresses with ports.
    services: Service ports.
    backends: endpoints of Service ports.
    slots: places in the Services' sets of endpoints.
    affinity: clients whose backend is remembered; the client longest unheard of makes room.
    fragments: datagrams in fragments; the oldest makes room.
    sockets: sockets of the node's own processes; the one longest unheard of makes room.
    source_ranges: loadBalancerSourceRanges of all Services.
    networks: the pods' networks.
    interfaces: the node's interfaces.
    tcp_syn_s: TCP and SCTP, until both ends have shown that they talk to each other.
    tcp_established_s: TCP, open, also where one side has closed.
    closing_s: after so long without a packet, what was closed or reset gives way to others.
    time_wait_s: TCP, closed by both sides; what is sent again until then is translated.
    reset_s: after a RST or ABORT, which may be forged, and that neither end contradicts.
    udp_new_s: UDP, until there has been a second round trip.
    udp_s: UDP.
    sctp_s: SCTP, open.
    host_routing: whether plain packets go past the host's stack (hostRouting: bpf).
    xdp: whether there are XDP programs; whoever wants none does not wait for their verification.
    xdp_generic: they are for generic mode, where they take no frames in pieces.
    """

    flows: int = 1 << 20
    frontends: int = 1 << 17
    services: int = 1 << 15  # ids have 16 bits
    backends: int = 1 << 17
    slots: int = 1 << 20
    affinity: int = 1 << 16
    fragments: int = 1 << 13
    sockets: int = 1 << 16
    source_ranges: int = 1 << 14
    networks: int = 1 << 10
    interfaces: int = 1 << 12
    tcp_syn_s: int = 60
    tcp_established_s: int = 8000
    closing_s: int = 10
    time_wait_s: int = 120
    reset_s: int = 3600
    udp_new_s: int = 30
    udp_s: int = 60
    sctp_s: int = 8000
    host_routing: bool = False
    xdp: bool = False
    xdp_generic: bool = False

    @property
    def longest_timeout_s(self) -> int:
        """After that long no flow is left that saw no packet."""
        return max(
            self.tcp_syn_s,
            self.tcp_established_s,
            self.closing_s,
            self.time_wait_s,
            self.reset_s,
            self.udp_new_s,
            self.udp_s,
            self.sctp_s,
        )
