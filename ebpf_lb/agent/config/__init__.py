"""The agent's configuration: what can be said, and where it is read from."""

from ebpf_lb.agent.config.errors import ConfigError
from ebpf_lb.agent.config.keys import POD_INTERFACES, Config
from ebpf_lb.agent.config.sources import Resolved, cgroup_root, load

__all__ = ["POD_INTERFACES", "Config", "ConfigError", "Resolved", "cgroup_root", "load"]
