"""A small evaluator of network policies: which connections of pods they allow."""

from collections.abc import Mapping
from typing import Any

from ops.kubernetes.manifests import Manifests

Labels = Mapping[str, str]


def selects(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Whether a label selector of Kubernetes selects labels; an empty one selects all."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for rule in selector.get("matchExpressions", ()):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


def admits(manifests: Manifests, direction: str, pod: Labels, peer: Labels, peer_namespace: str, port: int) -> bool:
    """Whether the policies let a pod of the installation be reached by a peer (Ingress), or reach it (Egress)."""
    policies = [
        one["spec"]
        for one in manifests.of("NetworkPolicy")
        if direction in one["spec"]["policyTypes"] and selects(one["spec"]["podSelector"], pod)
    ]
    if not policies:
        return True
    key, side = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    for policy in policies:
        for rule in policy.get(key, ()):
            if "ports" in rule and not any(
                one["port"] <= port <= one.get("endPort", one["port"]) for one in rule["ports"]
            ):
                continue
            if side not in rule:
                return True
            for one in rule[side]:
                if "ipBlock" in one:
                    continue
                space = {"kubernetes.io/metadata.name": peer_namespace}
                same = (
                    selects(one["namespaceSelector"], space)
                    if "namespaceSelector" in one
                    else peer_namespace == "recollect"
                )
                if same and selects(one.get("podSelector", {}), peer):
                    return True
    return False
