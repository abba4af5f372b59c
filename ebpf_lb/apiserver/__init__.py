"""A small Kubernetes API server, with the controllers that Services need, in one process.

The way of a request: `http` (protocol) -> `registry` (what an operation means) -> `strategies`
(defaults, validation and allocation of a kind) -> `store` (objects, versions, history). The
controllers work on the same registry. Everything runs on one event loop and nothing below `http`
awaits, so an operation is atomic.
"""
