"""What Prometheus reads: who counts what, and under which name."""
