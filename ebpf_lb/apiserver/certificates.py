"""The lab's own certificate authority and the server's certificate."""

import os
from collections.abc import Sequence
from pathlib import Path

import trustme


def write_private(path: Path, content: bytes) -> None:
    """A file that only its owner reads, from its first moment on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)


def ensure_certificates(folder: Path, addresses: Sequence[str], names: Sequence[str]) -> None:
    """`ca.crt`, `server.crt`, `server.key` in `folder`; what is there already is kept, so that a
    restarted server is still trusted."""
    if (folder / "server.key").exists():
        return
    authority = trustme.CA(organization_name="ebpf-lb lab")
    certificate = authority.issue_cert(*addresses, *names, common_name="kube-apiserver")
    (folder / "ca.crt").write_bytes(authority.cert_pem.bytes())
    chain = certificate.cert_chain_pems
    (folder / "server.crt").write_bytes(b"".join(pem.bytes() for pem in chain))
    # Last: its presence says that the others are there.
    write_private(folder / "server.key", certificate.private_key_pem.bytes())
