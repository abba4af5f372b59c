"""The real headers with a small main file, which compiles in a second; what the kernel then has."""

import shutil
from pathlib import Path

import pytest

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.libbpf import Map, Program
from ebpf_lb.datapath.loader.programs import LAYER_3, STACK, XDP
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family

SETTINGS = Settings(flows=256, frontends=64, services=64, backends=64, slots=64, affinity=64,
                    fragments=64, sockets=64, source_ranges=64)  # fmt: skip
FAMILIES = pytest.mark.parametrize("family", list(Family), ids=lambda family: family.directory)
LAYER_3_NAMES = set(LAYER_3.programs[Family.IPV4])
XDP_NAMES = set(XDP.programs[Family.IPV4])
# `pod_ingress` shows the seed as the hash uses it, of a packet's length.
MAIN = """#include "ground/base.h"
#include "ground/layout.h"
#include "ground/reason.h"
#include "ground/maps.h"
#include "ground/hash.h"

int pod_ingress(struct __sk_buff *skb)
{
	__u64 hash = mix64(skb->len ^ FLOW_SEED);
	struct flow_set *set = flow_set_get(hash & (FLOW_SETS - 1));

	return set ? hash >> 40 : 0;
}
"""


def small_sources(folder: Path) -> Path:
    shutil.copytree(layout.sources(), folder)
    functions = []
    for name in STACK.programs[Family.IPV4]:
        if name != "pod_ingress":
            cgroup = name.endswith(("4", "6"))
            context = "bpf_sock_addr *ctx" if cgroup else "__sk_buff *skb"
            function = f"int {name}(struct {context})\n{{\n\treturn {int(cgroup)};\n}}\n"
            functions.append(
                f"#if FAMILY == 4\n{function}#endif\n" if name.endswith("4") else function
            )
    (folder / "programs/stack.c").write_text(MAIN + "\n" + "\n".join(functions))
    functions = [f"int {name}(struct xdp_md *ctx)\n{{\n\treturn 2;\n}}\n" for name in XDP_NAMES]
    includes = MAIN.partition("int ")[0]
    (folder / "programs/xdp.c").write_text(includes + "\n".join(functions))
    functions = [f"int {name}(struct __sk_buff *skb)\n{{\n\treturn LINK_HEADER_BYTES;\n}}\n"
                 for name in LAYER_3.programs[Family.IPV4]]  # fmt: skip
    (folder / "programs/layer_3.c").write_text(includes + "\n".join(functions))
    return folder


def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EBPF_LB_CACHE", str(folder))
    return folder


def program_ids(build: Build) -> dict[str, int]:
    ids = {}
    for family in Family:
        for name in STACK.programs[family]:
            with Program.open(build.programs(family) / name) as program:
                ids[f"{family.directory}/{name}"] = program.info().id
    return ids


def map_ids(build: Build) -> dict[str, int]:
    """The ids of all maps but `calls`, of which every build has its own."""
    ids = {}
    for path in sorted(build.path.glob("*/maps/*")):
        if path.name != "calls":
            with Map.open(path) as table:
                ids[f"{path.parent.parent.name}/{path.name}"] = table.id
    return ids


def seed(build: Build, family: Family) -> int:
    with Map.open(build.maps(family) / "flow_seed") as table:
        return int.from_bytes(table.lookup(bytes(4)) or b"", "little")


def mix64(x: int) -> int:
    """MurmurHash3's finisher."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = ((x ^ x >> 33) * factor) % 2**64
    return x ^ x >> 33


def shown_hash(build: Build, family: Family) -> int:
    with Program.open(build.programs(family) / "pod_ingress") as program:
        return program.test_run(bytes(100)).retval


def state(root: Path) -> tuple[str, list[str], dict[str, int]]:
    """All that a failed attempt must leave as it was."""
    folders = sorted(path.name for path in (root / "builds").iterdir())
    return str((root / "current").readlink()), folders, program_ids(Pins(root).current)
