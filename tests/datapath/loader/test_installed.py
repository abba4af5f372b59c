"""The product's own sources."""

import ipaddress
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ebpf_lb.datapath import clock, layout
from ebpf_lb.datapath.libbpf import Program
from ebpf_lb.datapath.loader import objects, source
from ebpf_lb.datapath.loader.build import build
from ebpf_lb.datapath.loader.programs import UNITS, XDP
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.model.values import Family
from tests.capabilities import DATAPATH, needs
from tests.datapath.kernel import Kernel
from tests.support.packets import Packet

pytestmark = needs(*DATAPATH)


BPFFS_ROOT = Path("/sys/fs/bpf")


def test_every_constant_of_a_node_is_left_open(tmp_path: Path) -> None:
    """The compiler has computed with none of them: each stands where it can be filled in."""
    folder = tmp_path / "objects"
    assert build(BPFFS_ROOT, layout.sources(), folder) == [unit.name for unit in UNITS]
    for unit in UNITS:
        shipped = objects.find(unit, layout.sources(), folder)
        assert shipped is not None
        for image in shipped.values():
            found = {name for program in image.values() for name in program.constants.values()}
            # XDP has no socket buffer to be asked about
            asked = set(source.kernel_facts()[0]) if unit is XDP else set()
            assert found == set(source.names_filled_in()) - asked
    assert build(BPFFS_ROOT, layout.sources(), folder) == []
    assert not list(BPFFS_ROOT.glob(f"ebpf-lb-build-{os.getpid()}"))


# What a machine has for compiling, hidden from the process and what it starts.
HIDDEN = """
set -e
mount --make-rprivate /
mount -t tmpfs none /usr/include
for folder in /usr/lib/llvm-* /usr/lib/python3/dist-packages/bcc /usr/src; do
    [ ! -d "$folder" ] || mount -t tmpfs none "$folder"
done
for file in /usr/lib/*/libbcc.so* /usr/lib/*/libclang* /usr/lib/*/libLLVM* /usr/bin/clang*; do
    [ ! -e "$file" ] || mount --bind /dev/null "$(readlink -f "$file")"
done
! clang-14 --version 2>/dev/null
! python3 -c 'import bcc' 2>/dev/null
exec "$@"
"""
LOADS = """
import sys
from pathlib import Path
from ebpf_lb.datapath.loader import ensure_layer_3, ensure_loaded, objects
from ebpf_lb.datapath.settings import Settings

root, objects.FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
settings = Settings(flows=2048, udp_s=33, xdp=True)
loaded = ensure_loaded(root, settings)
print(loaded.compiled, ensure_layer_3(loaded.build, settings), "bcc" in sys.modules)
"""


def test_a_node_needs_no_compiler(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    build(BPFFS_ROOT, layout.sources(), folder)
    command = ["unshare", "--mount", "bash", "-c", HIDDEN, "hidden", sys.executable, "-c", LOADS]
    environment = os.environ | {"EBPF_LB_CACHE": str(tmp_path / "empty")}

    def load() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, str(root), str(folder)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = load()
    assert (done.returncode, done.stdout) == (0, "False False False\n"), done.stderr
    for family in Family:
        with Program.open(Pins(root).current.programs(family) / "clock") as program:
            assert 0 <= clock.now(program) - now_by_jiffies() <= 2
    # and what was hidden is needed where nothing was built
    shutil.rmtree(folder)
    shutil.rmtree(root)
    done = load()
    assert done.returncode == 1
    assert "LoaderError" in done.stderr and "`make build`" in done.stderr


def now_by_jiffies() -> int:
    """The lower 32 bits of the data path's tick, as the kernel's own clock tells."""
    for line in Path("/proc/timer_list").read_text().splitlines():
        if line.startswith("jiffies:"):
            return int(line.split()[1]) >> clock.tick_shift() & 0xFFFFFFFF
    raise AssertionError("no jiffies in /proc/timer_list")


def test_a_flow_that_a_program_wrote_is_read_as_bytes_and_as_fields(kernel: Kernel) -> None:
    addresses = {
        Family.IPV4: ("10.244.1.2", "10.96.0.20", "10.244.2.7"),
        Family.IPV6: ("fd00:10:244:1::2", "fd00:10:96::20", "fd00:10:244:2::7"),
    }[kernel.family]
    client, vip, backend = addresses
    service = kernel.service(vip, 80, [(backend, 9376)])
    assert kernel.run("pod_ingress", Packet(client, vip, 40000, 80)).passed

    with kernel.open("flows") as table:
        (value,) = (value for _, value in table.items() if value.strip(b"\0"))
    size = 32 if kernel.family is Family.IPV4 else 64
    (entry,) = (value[at : at + size] for at in range(0, 4 * size, size) if any(value[at:][:size]))
    assert entry[8:] == (
        b"".join(ipaddress.ip_address(address).packed for address in addresses)
        + bytes.fromhex("9c40 0050 24a0 0000")
    ).ljust(size - 8, b"\0")
    state, protocol = entry[3] >> 1 & 15, entry[3] >> 5 & 3
    assert (state, protocol) == (3, 1)  # NEW, TCP
    assert int.from_bytes(entry[4:6], "little") == kernel.writer.service_id(service)

    read = kernel.layout.struct("flow").unpack(entry)
    assert read.word == int.from_bytes(entry[:8], "little")
    assert (read.client, read.vip, read.backend) == tuple(
        ipaddress.ip_address(address).packed for address in addresses
    )
    assert (read.client_port, read.vip_port, read.backend_port) == (40000, 80, 9376)
    assert read.snat_port == 0
