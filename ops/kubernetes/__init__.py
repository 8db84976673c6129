"""The manifests of Kubernetes as values, and the drill that runs their pods on this machine without Kubernetes."""
