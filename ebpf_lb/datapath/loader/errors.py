"""What the loader says when it cannot go on."""

from ebpf_lb.errors import UserError


class LoaderError(UserError):
    """The programs could not be compiled, verified, loaded or pinned. What ran, runs on."""
