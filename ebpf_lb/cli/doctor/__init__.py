"""`ebpf-lb doctor`: is a node fit for ebpf-lb, and in which state is it?"""
