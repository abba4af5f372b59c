"""A unit's images as one file: a line with the SHA-256 of what follows, then compressed JSON."""

import hashlib
import json
import zlib
from collections.abc import Mapping

from ebpf_lb.datapath.loader.image import Image, from_plain, to_plain
from ebpf_lb.model.values import Family

Images = Mapping[Family, Image]

_MAGIC = b"ebpf-lb programs 2 "


def pack(images: Images) -> bytes:
    plain = {family.directory: to_plain(image) for family, image in images.items()}
    body = zlib.compress(json.dumps(plain).encode(), 6)
    return _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def unpack(data: bytes) -> Images:
    """ValueError: not whole, or of another version."""
    head, _, body = data.partition(b"\n")
    if head != _MAGIC + hashlib.sha256(body).hexdigest().encode():
        raise ValueError("not whole, or of another version")
    try:
        plain = json.loads(zlib.decompress(body))
        return {family: from_plain(plain[family.directory]) for family in Family}
    except (zlib.error, KeyError, TypeError) as error:
        raise ValueError(f"not as it was written: {error}") from error
