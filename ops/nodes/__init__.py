"""Nodes for drills: machines with their own addresses, made of network namespaces of this one (Linux, root)."""
