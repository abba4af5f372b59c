"""A cluster out of network namespaces on one machine.

                      client1 (172.31.0.2)
                         |  outside
                       router ........ cloud: LoadBalancers' addresses, routes to them
                         |  underlay (172.30.0.0/24)
         +---------------+---------------+---------------+
      control          node1           node2           node3
    (172.30.0.10)    (.11) cni0      (.12) cni0      (.13) cni0
     API server        |     |         |     |         |     |
                      pod   pod       pod   pod       pod   pod

Used from Python as the command line uses it (`from ebpf_lb.lab.cluster import Lab`,
`from ebpf_lb.lab.options import Options`):

    Options(nodes=3, family="dual", proxy="ebpf-lb", bridge_netfilter=True, hairpin_mode=False,
            network="routes", pods="bridge", clients=1, xdp="off", socket_hooks=True, dns=True)
                                               see options.py

    lab = Lab("lab")                           nothing happens yet; also for a lab that runs already
    lab.up(options, files=(), progress=print)  builds it, waits until it serves; UserError
    lab.down()                                 removes everything; also what was built only half
    lab.name                                   str
    lab.exists, lab.running                    bool; whether there is anything of it, and all of it
    lab.options                                what `up` was given; UserError if the lab is not up
    lab.client                                 ebpf_lb.lab.objects.client.Client on the API server
    lab.apply(files), lab.delete(files)        manifests, as `ebpf-lb lab apply -f`; "-" is stdin
    lab.nodes() -> list[NodeNames]             .name .number .addresses .pod_cidrs .bpffs .cgroup
    lab.pods() -> list[Pod]                    what the kubelet runs: .namespace .name .node
                                               .addresses .host_network .netns .cgroup .pid
    lab.hosts() -> list[str]                   client, control, router, node1 ...
    lab.exec(host, argv, **run_keywords) -> subprocess.CompletedProcess[str]
    lab.popen(host, argv, **popen_keywords) -> subprocess.Popen
        host: client, clientN, nodeN, router, control, a pod's name, or NAMESPACE/POD; runs in the
        host's network namespace and cgroup; output captured as text, status not checked, unless
        the keywords say otherwise; on a node `ebpf-lb maps dump` finds the node's own maps.
    lab.entered(host)                          context manager: this *thread* is in the host's
                                               network namespace (sockets made there stay there)
    lab.routes() -> dict                       external address -> {"nodes": [...], "pinned": bool}
    lab.route(address, node)                   pins the way to it; None: the cloud decides again
    lab.start_agent(node, xdp=None)            unless it runs; with another --xdp than the lab's
    lab.stop_agent(node), lab.kill_agent(node) by SIGTERM, by SIGKILL; wait for it
    lab.agent_healthy(node) -> bool            /healthz on the node answers 200
    lab.wait_for_agents(timeout_s=60, only=None)  of all nodes whose agent was started, or of one
    lab.kubeconfig(node=None) -> str           the text of a kubeconfig
    lab.log(process) -> pathlib.Path           "apiserver", "kubelet", "cloud", "agent-node1",
                                               "pods/NS_NAME"
    lab.status() -> dict                       what `ebpf-lb lab status -o json` prints
"""
