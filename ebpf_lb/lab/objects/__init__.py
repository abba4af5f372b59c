"""Objects of the lab as people handle them: manifests, apply, delete, tables."""
