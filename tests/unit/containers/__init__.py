"""What pods run, without namespaces, but for a real nginx in one of its own."""
