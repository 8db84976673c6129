"""The HTTP server of a replica: connections, admission, the boundary around handlers, checked inputs."""
