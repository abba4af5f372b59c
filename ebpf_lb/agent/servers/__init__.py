"""What others may ask the agent over HTTP: probes, balancers, scrapes, people."""
