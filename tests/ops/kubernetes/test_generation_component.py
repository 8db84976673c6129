"""The component `generation`: its nightly job."""

import os
import subprocess
import time
from pathlib import Path

import yaml

from ops.kubernetes.manifests import FOLDER


def test_each_night_has_a_folder_of_lists_and_old_ones_go(tmp_path: Path) -> None:
    """The job's own script, with a `recollect` that writes down how it is called."""
    (manifest,) = yaml.safe_load_all((FOLDER / "components/generation/generation.yaml").read_text())
    (container,) = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (lists,) = [one["value"] for one in container["env"] if one["name"] == "LISTS"]
    (claim,) = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "lists"]
    assert Path(lists).parent == Path(claim)
    (tmp_path / "recollect").write_text('#!/bin/sh\necho "$@" >>"$RECORD"\n')
    (tmp_path / "recollect").chmod(0o755)
    folder = tmp_path / "lists" / "nightly"
    now_s = time.time()
    for name, age_days in (("old", 7.1), ("kept", 6.9)):
        (folder / name).mkdir(parents=True)
        (folder / name / "shard-00000.parquet").touch()
        os.utime(folder / name, (now_s - age_days * 86_400,) * 2)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RECORD": str(tmp_path / "record")}
    for job, more in (("first", []), ("second", ["--cluster", "recollect-cluster:7379"])):
        (tmp_path / "record").unlink(missing_ok=True)
        words = [*container["command"], *more]
        subprocess.run(words, env={**environ, "LISTS": str(folder), "JOB": job}, check=True)
        called = " ".join(["generate --n 100 --live --output", f"{folder}/{job}", *more])
        assert (tmp_path / "record").read_text() == f"{called}\ngenerate erase\n"
    assert [path.name for path in folder.iterdir()] == ["kept"]
