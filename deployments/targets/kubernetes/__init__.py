"""Kubernetes as a target: plain objects, server-side applied. The only folder that imports the kubernetes client."""
