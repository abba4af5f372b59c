"""The rules that kube-proxy writes for a Service's clusterIP in its mode iptables, from the Service
and its endpoints: what our map entries stand for.

Upstream: pkg/proxy/iptables/proxier.go. Chains are named as there, by a hash of what they are for.
"""

import base64
import hashlib
from collections.abc import Sequence


def rules(
    service: str, address: str, port: int, protocol: str, endpoints: Sequence[str], pods: str
) -> list[str]:
    """service: NAMESPACE/NAME. endpoints: ADDRESS:PORT. pods: the pods' network."""
    words = protocol.lower()
    chain = _chain("KUBE-SVC-", service, words)
    comment = f'-m comment --comment "{service}'
    to_service = f'-d {address}/32 -p {words} {comment} cluster IP" -m {words} --dport {port}'
    found = [
        f"-A KUBE-SERVICES {to_service} -j {chain}",
        f"-A {chain} ! -s {pods} {to_service} -j KUBE-MARK-MASQ",
    ]
    for index, endpoint in enumerate(endpoints):
        left = len(endpoints) - index
        chance = f" -m statistic --mode random --probability {1 / left:.10f}" if left > 1 else ""
        target = _chain("KUBE-SEP-", service, words, endpoint)
        found.append(f'-A {chain} {comment} -> {endpoint}"{chance} -j {target}')
    for endpoint in endpoints:
        target = _chain("KUBE-SEP-", service, words, endpoint)
        host = endpoint.rpartition(":")[0]
        found += [
            f'-A {target} -s {host}/32 {comment}" -j KUBE-MARK-MASQ',
            f'-A {target} -p {words} {comment}" -m {words} -j DNAT --to-destination {endpoint}',
        ]
    return [
        *found,
        "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    ]


def _chain(kind: str, *parts: str) -> str:
    digest = hashlib.sha256("".join(parts).encode()).digest()
    return kind + base64.b32encode(digest).decode()[:16]
