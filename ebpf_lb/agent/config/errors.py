"""What is wrong with a configuration."""

from ebpf_lb.errors import UserError


class ConfigError(UserError):
    """A value that cannot be: the sentence names the key, where it was read, and what is wrong."""
