"""The machine as the agent needs it: bpffs, conntrack limits, one process at a time."""
