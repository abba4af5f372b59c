"""`python -m ebpf_lb` is `ebpf-lb`."""

from ebpf_lb.cli.main import main

main()
