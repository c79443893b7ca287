"""The local target: replicas are processes of this machine behind a proxy, kept by a daemon called the node."""
