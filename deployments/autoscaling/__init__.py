"""Signals in, decisions out: the local autoscaler and the log of what it decided."""
