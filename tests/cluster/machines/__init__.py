"""Vagrant's machines without virtual machines: Debian with systemd in namespaces of this machine.

vagrantfile    what the Vagrantfile says of its machines, by Ruby
stock          what registries have: Debian's packages, Kubernetes' from the rig's programs, PyPI's
outside        the host outside: a name server, and a web server with that stock
machine        one machine: a Debian root, systemd as process 1, provisioning, reboot
images         container images out of the rig's programs

The provisioning's scripts run as they are. Different from virtual machines, and why:

- The kernel is this machine's, so `/proc/sys` cannot be written but for `net`: settings of
  the whole machine keep their value, and those that kubelet makes are files of the machine's own.
- Where this machine has cgroup version 1, kubelet and kubeadm are told to put up with it.
- Where this machine's root may not lower OOM scores, containerd is told not to.
- Images are imported by `ctr`, since no registry of images is at hand.
"""
