"""Defaults, validation and allocation, kind by kind."""
