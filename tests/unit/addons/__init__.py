"""The add-ons, without namespaces, but for a real nginx in one of its own."""
