"""The ports that the agent serves by default: kube-proxy's."""

HEALTHZ_PORT = 10256
METRICS_PORT = 10249
