"""What one can learn in a lab: the demo, scenarios of single connections, and the tutorial.

Built upon `ebpf_lb.lab`, which knows nothing of it.
"""
