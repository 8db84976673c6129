"""A machine's part in a cluster of Ray: its processes, its token, and what the cluster says of its machines."""
