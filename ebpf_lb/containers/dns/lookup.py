"""`python -m ebpf_lb.containers.dns.lookup TYPE NAME [TYPE NAME]…`: records, as `dig` prints them.

It asks whom `/etc/resolv.conf` names, with its search list, as a pod's programs do.
"""

import sys

import dns.exception
import dns.resolver
import dns.reversename


def lines(kind: str, name: str) -> list[str]:
    """The records, or one sentence that says why there are none."""
    asked = dns.reversename.from_address(name) if kind == "PTR" else name
    try:
        answer = dns.resolver.resolve(asked, kind, search=kind != "PTR")
    except dns.resolver.NXDOMAIN:
        return [f"; {name}: there is no such name"]
    except dns.resolver.NoAnswer:
        return [f"; {name}: it has no record of type {kind}"]
    except dns.exception.DNSException as error:
        return [f"; {name}: {error}"]
    return sorted(line for rrset in answer.response.answer for line in rrset.to_text().splitlines())


def main() -> None:
    words = sys.argv[1:]
    for kind, name in zip(words[::2], words[1::2], strict=True):
        print("\n".join(lines(kind.upper(), name)))


if __name__ == "__main__":
    main()
