"""Where everything lies in bpffs.

    ROOT/current -> builds/BUILD          the build that the hooks run, switched by one rename
    ROOT/builds/BUILD/ipv4/maps/NAME      maps of one family; a map whose layout did not change is
                                          pinned in the old and the new build alike
    ROOT/builds/BUILD/ipv4/programs/NAME  programs of one family
    ROOT/builds/BUILD/ipv4/UNIT/calls     xdp's and l3's own slow paths; see loader/programs.py
    ROOT/builds/BUILD/node/maps/NAME      maps that both families share
    ROOT/builds/BUILD/settings -> NAME=…  what the build was made with (settings.py)
    ROOT/links/NAME                       cgroup links, which outlive builds
    ROOT/tcx/IFINDEX-DIRECTION-FAMILY     interfaces' links, likewise
    ROOT/accept_local -> 0                what the setting was before us (accept_local.py)

BUILD is a hash of the sources and of every setting that the programs know.
"""

from dataclasses import dataclass
from pathlib import Path

from ebpf_lb.model.values import Family

BPFFS = Path("/sys/fs/bpf")  # where bpffs is mounted by convention
DEFAULT_ROOT = BPFFS / "ebpf-lb"


@dataclass(frozen=True, slots=True)
class Build:
    """One build's folder."""

    path: Path

    def maps(self, family: Family | None) -> Path:
        """The folder of a family's maps; of those of the whole node for None."""
        return self.path / (family.directory if family else "node") / "maps"

    def calls(self, family: Family, unit: str) -> Path:
        """The folder of a unit's program array."""
        return self.maps(family) if unit == "stack" else self.path / family.directory / unit

    def programs(self, family: Family) -> Path:
        return self.path / family.directory / "programs"

    @property
    def settings(self) -> Path:
        """A link that leads nowhere: bpffs holds no files, and this is their text."""
        return self.path / "settings"


@dataclass(frozen=True, slots=True)
class Pins:
    """A node's folder in bpffs."""

    root: Path

    @property
    def current(self) -> Build:
        return Build(self.root / "current")

    @property
    def builds(self) -> Path:
        return self.root / "builds"

    def build(self, build_id: str) -> Build:
        return Build(self.builds / build_id)

    @property
    def links(self) -> Path:
        return self.root / "links"

    @property
    def tcx(self) -> Path:
        return self.root / "tcx"

    @property
    def accept_local(self) -> Path:
        return self.root / "accept_local"
