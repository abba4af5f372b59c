"""Step 2: an address that nobody has."""

from ebpf_lb.lab.names import PODS
from ebpf_lb.lessons.demo import manifest
from ebpf_lb.lessons.tutorial import iptables
from ebpf_lb.lessons.tutorial.stage import Stage
from ebpf_lb.lessons.tutorial.steps import algorithms

TITLE = "ClusterIP: an address that no machine has"
TEXT = (
    "A connection to the ClusterIP goes to one of the pods, each time to another by chance, but "
    "nothing has the address itself, so nobody answers a ping to it. kube-proxy writes a list of "
    "rules for this, which a packet goes through one after the other; here it is three look-ups in "
    "hash tables, however many Services there are."
)
_TIMES = 60


def act(stage: Stage) -> None:
    stage.apply(manifest().read_text())
    pods = stage.ready_pods(3)
    address = stage.service_address("hostnames")
    url = stage.url(address)
    stage.served_by(pods[0], url, pods)

    stage.say("\nThree times the same request:")
    for _ in range(3):
        stage.run(pods[0], "curl", "-sg", "-w", "\\n", url)
    counts = stage.count(pods[0], url, _TIMES)
    stage.check(set(counts) == set(pods), "not every pod answered")

    stage.tell(
        "The address is a destination of connections to its port only. Nobody is there to answer "
        "a ping; the node says so at once, in the address' name, instead of leaving the client "
        "waiting:"
    )
    ping = stage.run(pods[0], "ping", "-c", "1", "-W", "1", address)
    stage.check(" 0 received" in ping, "somebody answers the ping")

    _compare(stage, address, pods)
    algorithms.act(stage, url, pods)


def _compare(stage: Stage, address: str, pods: list[str]) -> None:
    addresses = [stage.get("pods", name)["status"]["podIP"] for name in pods]
    endpoints = [f"{each}:9376" for each in addresses]
    if ":" not in address:  # the names of ip6tables' rules are the same, their form is not
        stage.tell(
            "What kube-proxy would write for this Service in its mode iptables (computed, not in "
            "this lab). One rule after the other is tried: the first pod is taken with probability "
            "1/3, else the second with 1/2, else the third. Who comes from elsewhere, and a pod "
            "that comes to itself, is marked (KUBE-MARK-MASQ) to be masqueraded on the way out:"
        )
        name = f"{stage.namespace}/hostnames"
        rules = iptables.rules(name, address, 80, "TCP", endpoints, str(PODS.ipv4))
        stage.show("\n".join(rules))
    stage.tell(
        "What the kernel's maps hold for it on node1 instead, found by hash: the Service by its "
        "address, and its pods:"
    )
    whose = f"{stage.namespace}/hostnames"
    words = ["ebpf-lb", "maps", "dump", "frontends", "backends", "--service", whose]
    dump = stage.run("node1", *words, quiet=True)
    wanted = [address, *addresses]
    lines = [line for line in dump.splitlines() if any(each in line.split() or each in line
                                                       for each in wanted)]  # fmt: skip
    stage.say(f"  $ ebpf-lb lab exec node1 -- {' '.join(words)}")
    stage.show("\n".join(lines))
    for each in wanted:
        stage.check(any(each in line for line in lines), f"{each} is not in node1's maps")
