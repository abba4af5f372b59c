"""Who comes first where not all can."""

from dataclasses import replace

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.plan.cluster import Cluster
from ebpf_lb.plan.priority import CLUSTER_DNS
from ebpf_lb.plan.reserved import KUBERNETES
from tests.unit.plan.make import NODE, WEB, service


def test_what_the_cluster_lives_by_then_the_older_one_then_the_lesser_name() -> None:
    keys = [
        KUBERNETES,
        CLUSTER_DNS,
        ObjectKey("kube-system", "coredns"),
        ObjectKey("a", "old"),
        ObjectKey("a", "twin"),
        ObjectKey("b", "twin"),
        ObjectKey("a", "kube-dns"),
    ]
    ages = (9, 10, 11, 1, 2, 2, 3)
    cluster = Cluster(NODE)
    for number, (key, age) in enumerate(reversed(list(zip(keys, ages, strict=True)))):
        own = service(key, created_s=age, cluster_ips=(bytes([10, 96, 0, number]),))
        # anybody may put the label on: it counts beside cluster DNS alone
        cluster.set_service(replace(own, cluster_dns=key.name in ("coredns", "kube-dns")))
    assert cluster.take_changes() == keys
    assert [key for key in keys if cluster.priority(key).critical] == keys[:3]


def test_which_services_are_critical_is_configured() -> None:
    cluster = Cluster(NODE, critical=[WEB])
    for number, key in enumerate((KUBERNETES, WEB)):
        cluster.set_service(service(key, cluster_ips=(bytes([10, 96, 0, number]),)))
    assert cluster.take_changes() == [WEB, KUBERNETES]
