"""Where ebpf-lb does otherwise than kube-proxy, and means it: by the rule of docs/semantics.md.

Each is a change to the rules that kube-proxy would write (netfilter.py). With all of them, no
script may show a difference; without any one of them, one does (test_departures.py). So the list
has what it must have, and nothing more.
"""

DEPARTURES = {
    "VE-8": "what opens nothing and is still on its way to the service network is dropped",
    "VE-10": "TCP is refused by a RST, not by an ICMP error",
    "VE-13": "a client's address is kept where its answers come by this node anyway",
    "VE-16": "what asks a ClusterIP by the uplink is masqueraded if its backend is elsewhere",
    "VE-17": "pods of other nodes are outside clients under eTP Local",
    "CO-1": "only what opens a connection becomes a Service's",
    "CO-15": "UDP by a nodePort is let go with the last endpoint, and if another Service gets it",
    "CO-28": "a client's port is kept where it is free",
    "CO-7": "a segment out of place is not answered by the node with a RST to one of the ends",
}
ALL = frozenset(DEPARTURES)
