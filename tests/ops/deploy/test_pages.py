"""Every command of the pages on Kubernetes, systemd and EC2 runs, with stand-ins for what only a cluster has.

A stand-in records its call, so that the test knows which commands were not tried.
"""

import base64
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from ops.kubernetes.manifests import Manifests, parse, render
from ops.kubernetes.pod_installation import new_secrets
from ops.kubernetes.pod_template import pod_template
from service.security.key_file import KeyFile
from tests.support.machines.programs import need_programs

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
# Runs the client half of kubectl: what it would send to a cluster is printed and validated.
KUBECTL = """#!/bin/sh
real=$(PATH=${PATH#*:} command -v kubectl)
case "$*" in
  "kustomize "*) echo ---; exec "$real" "$@" ;;
  "apply -k "*) echo "kubectl apply -k" >>"$RECORD"; echo ---; exec "$real" kustomize "$3" ;;
  "apply -f -") echo "kubectl apply -f" >>"$RECORD"; exec cat ;;
  *"--dry-run=client"*) echo ---; exec "$real" "$@" ;;
  *"create namespace"* | *"create secret"*) echo ---; exec "$real" "$@" --dry-run=client -o yaml ;;
  *"get secret"*) echo "kubectl get secret" >>"$RECORD"; base64 "$KEYS" | tr -d '\\n' ;;
  *) echo "kubectl $*" >>"$RECORD" ;;
esac
"""


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH begins with the stand-ins, and the file of their calls."""
    programs = tmp_path / "programs"
    programs.mkdir()
    record = 'echo "$(basename "$0") $*" >>"$RECORD"\n'
    recollect = f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m ops "$@"\n'
    scripts = {
        "kubectl": KUBECTL,
        "recollect": recollect,
        # The unit's installation goes into a folder.
        "sh": f'#!/bin/sh\ncase "$1" in *install.sh) set -- "$@" "{tmp_path}/root" ;; esac\nexec /bin/sh "$@"\n',
        **dict.fromkeys(("apt-get", "systemctl", "aws", "curl", "make", "python"), f"#!/bin/sh\n{record}"),
    }
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    keys = tmp_path / "keys" / "keys.json"
    with KeyFile(keys.parent).edit():
        pass
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RECOLLECT_")}
    return environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "RECORD": str(tmp_path / "record"),
        "KEYS": str(keys),
        "KEY": "rk_",
        "RECOLLECT_HOME": str(tmp_path / "home"),
        "RECOLLECT_FILE": "none",
    }


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def run_page(page: str, environ: dict[str, str], folder: Path) -> tuple[list[str], list[str]]:
    """Run every shell block of a page, in order; return what they printed and the calls of stand-ins."""
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / "ops").symlink_to(ROOT / "ops")
    printed = []
    for block in blocks(page, "sh"):
        # Where the page names the checkout's own program, this is that of the tests.
        text = block.replace("RECOLLECT=.venv/bin/recollect", "RECOLLECT=recollect")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=environ, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        printed.append(done.stdout)
    return printed, Path(environ["RECORD"]).read_text().splitlines()


def without_values(calls: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(calls))


def test_the_commands_of_kubernetes_run(stand_ins: dict[str, str], tmp_path: Path) -> None:
    """Secrets, overlays and keys are made, and valid; what needs a cluster is in the list below."""
    need_programs("kubectl", "base64")
    folder = tmp_path / "checkout"
    folder.mkdir()
    printed, calls = run_page("kubernetes.md", stand_ins, folder)
    objects = [one for text in printed for one in parse(text).objects if "kind" in one]
    kinds = [one["kind"] for one in objects]
    assert kinds.count("Secret") == 6
    assert kinds.count("StatefulSet") == 6
    for one in objects:
        kubernetes_validate.validate(one, "1.34", strict=True)
    # The last secret is the first one with another key.
    made = base64.b64decode(objects[-1]["data"]["keys.json"])
    (tmp_path / "changed").mkdir()
    (tmp_path / "changed" / "keys.json").write_bytes(made)
    (tmp_path / "changed" / "keys.json").chmod(0o600)
    (key,) = KeyFile(tmp_path / "changed").read() or []
    assert key.note == "a shop"
    assert without_values(calls) == [
        "make image",
        "kubectl apply -f",
        "kubectl apply -k",
        "kubectl -n recollect rollout status statefulset/recollect-replica",
        "kubectl -n recollect create job first-training --from=cronjob/recollect-training",
        "kubectl -n recollect port-forward service/recollect 8080:80",
        "curl -H Authorization: Bearer rk_ http://127.0.0.1:8080/recommend/1",
        "make image TRAINING_EXTRAS=train query cluster",
        "kubectl -n recollect rollout status deployment/recollect-cluster-worker",
        "kubectl -n recollect exec deployment/recollect-cluster-worker -- recollect cluster status",
        "kubectl -n recollect create job training-on-many-nodes --from=cronjob/recollect-training",
        "kubectl -n recollect scale deployment/recollect-cluster-worker --replicas 8",
        "python -m ops.kubernetes cluster --data demo:3000x1000x200000 --algorithms ials,two_tower",
        "python -m ops.kubernetes life --rate 300 --image recollect --training-image recollect-training",
        "kubectl -n recollect logs statefulset/recollect-replica",
        "kubectl -n recollect exec deployment/recollect-edge -- tail /var/lib/recollect/logs/nginx-0.access.log",
        "kubectl -n recollect exec recollect-consumer-0 -- recollect audit",
        "kubectl -n recollect exec recollect-replica-0 -- recollect doctor",
        "kubectl get secret",
    ]


def of_page(number: int, folder: Path) -> Manifests:
    """Return what a kustomization of the page makes."""
    text = blocks("kubernetes.md", "yaml")[number]
    yaml.safe_load(text)
    place = os.path.relpath(ROOT / "ops" / "deploy", folder)
    (folder / "kustomization.yaml").write_text(text.replace("ops/deploy", place))
    return render(folder)


def test_the_workers_of_the_page_have_its_size(tmp_path: Path) -> None:
    """Its second kustomization: four pods of eight workers, with a larger store, and both jobs on the cluster."""
    need_programs("kubectl")
    rendered = of_page(1, tmp_path)
    worker = rendered.named("Deployment", "recollect-cluster-worker")
    assert worker["spec"]["replicas"] == 4
    pod = pod_template(rendered, new_secrets()[0], "Deployment", "recollect-cluster-worker")
    assert pod.environ["WORKERS"] == "8"
    assert pod.memory == {"/dev/shm": 9 << 30}
    for job in ("training", "generation"):
        spec = rendered.named("CronJob", f"recollect-{job}")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        assert spec["containers"][0]["args"][-2] == "--cluster"


def test_the_kustomization_of_the_page_is_one(tmp_path: Path) -> None:
    """It names an image, adds TLS and a setting to an overlay."""
    need_programs("kubectl")
    rendered = of_page(0, tmp_path)
    settings = rendered.named("ConfigMap", "recollect-settings")
    assert settings["data"]["RECOLLECT_LIVE_IMPRESSIONS"] == "true"
    assert settings["data"]["RECOLLECT_HOME"] == "/var/lib/recollect"
    for name in ("StatefulSet/recollect-replica", "Deployment/recollect-edge"):
        pod = rendered.named(*name.split("/"))["spec"]["template"]["spec"]
        assert pod["containers"][0]["image"] == "registry.example.com/recollect:0.5.0"
        consumer = rendered.named("StatefulSet", "recollect-consumer")["spec"]["template"]["spec"]
        assert consumer["containers"][0]["image"] == "registry.example.com/recollect-training:0.5.0"
        assert {"configMapRef": {"name": settings["metadata"]["name"]}} in pod["containers"][0]["envFrom"]
    edge = rendered.named("Deployment", "recollect-edge")["spec"]["template"]["spec"]["containers"][0]
    assert "RECOLLECT_TLS_CERT" in {one["name"] for one in edge["env"]}


def test_the_commands_of_systemd_and_ec2_run(stand_ins: dict[str, str], tmp_path: Path) -> None:
    """Units are installed and measured, user data is checked; packages, units and instances are in the list below."""
    need_programs("systemd-analyze", "cloud-init")
    folder = tmp_path / "checkout"
    folder.mkdir()
    printed, calls = run_page("ec2.md", stand_ins, folder)
    assert (tmp_path / "root/etc/systemd/system/recollect.service").exists()
    exposure = re.search(r"Overall exposure level for recollect.service: ([0-9.]+)", printed[1])
    assert exposure is not None
    # The page says so.
    assert f"says {exposure[1]} of 10" in (DOCS / "ec2.md").read_text()
    assert "Valid cloud-config" in printed[2]
    assert without_values(calls) == [
        "apt-get install --yes make python3-venv nginx-light redis-server",
        "systemctl disable --now redis-server.service nginx.service",
        "systemctl enable --now recollect.service recollect-nightly.timer",
        "aws ec2 run-instances --user-data file://ops/deploy/ec2/one-machine.yaml --cli-input-json file://instance.json",
    ]
