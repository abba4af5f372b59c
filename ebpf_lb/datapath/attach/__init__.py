"""Attaching pinned programs: to interfaces by tcx links or TC filters, and XDP; to the node's
sockets by cgroup links.

Always by replacing, so that no packet passes between two versions; everything stays when the agent
ends.
"""
