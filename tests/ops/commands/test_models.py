import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops.cli import application
from ops.console.command_runner import run
from service.config import Config
from service.models.files import active_model, artefact
from service.models.publication import publication
from service.models.snapshot import ModelSnapshot
from service.training import pipeline

ROOT = Path(__file__).resolve().parents[3]
MISSING = "svd-20200101T000000-0000"
Recollect = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "var")


@pytest.fixture
def recollect(config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Recollect:
    monkeypatch.setenv("RECOLLECT_HOME", str(config.home))

    def call(*argv: str) -> tuple[int, str, str]:
        code = run(application(["models"]), ["models", *argv])
        return code, *capsys.readouterr()

    return call


def trained(config: Config, *, activate: bool = True, algorithm: str = "popularity") -> str:
    manifest = pipeline.train(config, data="demo:60x40x900", algorithm=algorithm, activate=activate)
    version: str = manifest["version"]
    return version


class TestList:
    def test_without_a_model(self, recollect: Recollect, config: Config) -> None:
        """It says so, and how to make one; as JSON it is an empty list. Looking makes no directory."""
        code, out, _ = recollect("list")
        assert code == 0
        assert "recollect train --data PATH" in out
        assert recollect("list", "--json") == (0, "[]\n", "")
        assert not config.home.exists()

    def test_the_active_one_is_marked(self, recollect: Recollect, config: Config) -> None:
        """One line each under a heading, oldest first."""
        first, second = trained(config), trained(config, activate=False)
        code, out, err = recollect("list")
        heading, *lines = out.splitlines()
        assert (code, err) == (0, "")
        assert heading.split() == ["version", "users", "items", "rmse", "ndcg@10", "data"]
        assert {line.split()[-6] for line in lines} == {first, second}
        assert [line.split()[1] for line in lines if line.startswith("* ")] == [first]
        assert all(line.split()[-5:-3] == ["60", "40"] and line.endswith("demo:60x40x900") for line in lines)

    def test_no_column_is_cut_on_a_pipe(self, config: Config) -> None:
        """However narrow the terminal is said to be, what a script reads is whole."""
        version = trained(config, algorithm="svd")
        environ = {**os.environ, "RECOLLECT_HOME": str(config.home), "COLUMNS": "20"}
        command = [sys.executable, "-m", "ops", "models", "list"]
        out = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True).stdout
        manifest = artefact.read_manifest(config.models_dir / version)
        reached = [f"{manifest['measures'][name]:.4f}" for name in ("rmse", "ndcg@10")]
        expected = ["*", version, "60", "40", *reached, "demo:60x40x900"]
        assert out.splitlines()[1].split() == expected

    def test_json(self, recollect: Recollect, config: Config) -> None:
        """A list of objects with the figures of each version."""
        version = trained(config)
        code, out, _ = recollect("list", "--json")
        (row,) = json.loads(out)
        assert code == 0
        assert (row["version"], row["active"], row["n_users"], row["source"]) == (version, True, 60, "demo:60x40x900")
        assert row["rmse"] == row["measures"]["rmse"]

    @pytest.mark.parametrize("text", ["{", '{"format": 99}', "[]"])
    def test_a_refused_version_is_listed_with_the_reason(self, recollect: Recollect, config: Config, text: str) -> None:
        """It hides neither itself nor the others."""
        good, bad = trained(config), trained(config, activate=False)
        (config.models_dir / bad / "manifest.json").write_text(text)
        code, out, _ = recollect("list")
        (line,) = (line for line in out.splitlines() if bad in line)
        assert code == 0
        assert f"refused: {bad}: the manifest" in line
        assert good in out
        refused = {row["version"]: row.get("refused") for row in json.loads(recollect("list", "--json")[1])}
        assert refused[good] is None
        assert refused[bad].startswith(bad)

    def test_measures_of_any_kind_are_listed(self, recollect: Recollect, config: Config) -> None:
        """A manifest that was edited by hand does not end the list."""
        version = trained(config)
        path = config.models_dir / version / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "measures": [1], "data": "x"}))
        code, out, _ = recollect("list")
        assert (code, out.splitlines()[1].split()[-2:]) == (0, ["-", "-"])

    def test_a_broken_active_file(self, recollect: Recollect, config: Config) -> None:
        """The list says so and goes on, for it is where one looks for what to activate instead."""
        version = trained(config)
        (config.models_dir / "ACTIVE").write_text("nonsense")
        code, out, err = recollect("list")
        assert (code, version in out) == (0, True)
        assert "does not name a version: 'nonsense'" in err
        assert recollect("activate", version)[0] == 0
        assert recollect("list")[2] == ""


class TestShow:
    def test_the_active_one_by_default(self, recollect: Recollect, config: Config) -> None:
        """As JSON, with and without --json."""
        version = trained(config)
        manifest = artefact.read_manifest(config.models_dir / version)
        for argv in (("show",), ("show", version), ("show", version, "--json")):
            code, out, _ = recollect(*argv)
            assert (code, json.loads(out)) == (0, manifest)

    def test_the_help_says_that_json_changes_nothing(self, recollect: Recollect) -> None:
        """What is printed is JSON anyway."""
        code, out, _ = recollect("show", "--help")
        assert (code, "--json  Changes nothing" in out) == (0, True)

    @pytest.mark.parametrize("version", [MISSING, "../elsewhere", "", "/etc", "a\0b", "x" * 5000])
    def test_what_is_not_there(self, recollect: Recollect, config: Config, version: str) -> None:
        """One sentence and exit 1, whatever is asked for; a name never becomes a path elsewhere."""
        trained(config)
        (config.home / "elsewhere").mkdir()
        (config.home / "elsewhere" / "manifest.json").write_text("secret")
        code, out, err = recollect("show", version)
        assert (code, out) == (1, "")
        assert err.startswith("recollect: There is no model ")
        assert "secret" not in err

    def test_nothing_is_active(self, recollect: Recollect) -> None:
        """It says where it looked."""
        code, _, err = recollect("show")
        assert code == 1
        assert "No model is active in" in err


class TestActivate:
    def test_an_older_one_is_the_rollback(self, recollect: Recollect, config: Config) -> None:
        """ACTIVE and the static lists name it; the answer says what was active before."""
        old, new = trained(config), trained(config)
        code, out, _ = recollect("activate", old)
        assert code == 0
        assert out == f"{old} is active; running replicas swap it in within a second. Before: {new}.\n"
        assert active_model.version(config.models_dir) == old
        assert json.loads((config.models_dir / "popular.json").read_bytes())["model"] == old
        assert recollect("activate", new, "--json") == (0, f'{{"active": "{new}", "before": "{old}"}}\n', "")

    @pytest.mark.parametrize("version", [MISSING, "../elsewhere", ""])
    def test_what_is_not_there(self, recollect: Recollect, config: Config, version: str) -> None:
        """Exit 1; without a home none is made."""
        for _ in range(2):
            code, out, err = recollect("activate", version)
            assert (code, out) == (1, "")
            assert f"There is no model {version!r}" in err
            assert not config.home.exists() or active_model.version(config.models_dir) is not None
            trained(config)

    def test_a_damaged_one_is_refused(self, recollect: Recollect, config: Config) -> None:
        """What was active stays."""
        bad, good = trained(config), trained(config)
        with (config.models_dir / bad / "item_bias.bin").open("r+b") as file:
            file.write(b"\xff\xff\xff\xff")
        code, out, err = recollect("activate", bad)
        assert (code, out) == (1, "")
        assert err == f"recollect: {bad}: item_bias does not have the sha256 of the manifest.\n"
        assert active_model.version(config.models_dir) == good

    def test_what_cannot_be_written_is_one_sentence(self, recollect: Recollect, config: Config) -> None:
        """The run failed, and the sentence says where."""
        version = trained(config)
        (config.models_dir / "ACTIVE").unlink()
        (config.models_dir / "ACTIVE").mkdir()
        code, _, err = recollect("activate", version)
        assert code == 1
        assert err.splitlines()[-1].startswith(f"recollect: {version} cannot be activated in {config.models_dir}: ")
        assert not list(config.models_dir.glob(".*.tmp"))

    def test_activations_take_turns_with_trainings(self, config: Config) -> None:
        """However they interleave, ACTIVE and the static lists name one model."""
        versions = [trained(config) for _ in range(2)]
        environ = {**os.environ, "RECOLLECT_HOME": str(config.home)}
        verbs = [["models", "activate", version] for version in versions]
        verbs.append(["train", "--data", "demo:60x40x900", "--algorithm", "popularity"])
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "ops", *verb],
                cwd=ROOT,
                env=environ,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for verb in verbs
        ]
        assert [process.wait(60) for process in running] == [0, 0, 0]
        popular = json.loads((config.models_dir / "popular.json").read_bytes())
        assert popular["model"] == active_model.version(config.models_dir)

    def test_lists_that_lose_to_popularity_are_forced_only(self, recollect: Recollect, config: Config) -> None:
        """Exit 3 with the reason; with --force it is served, and can be named again without."""
        poor, good = trained(config, algorithm="svd", activate=False), trained(config)
        code, out, err = recollect("activate", poor)
        assert (code, out) == (3, "")
        assert err.startswith(f"recollect: {poor} is not activated: its lists are worse than lists by popularity: its ")
        assert err.endswith("Activate it in any case with --force.\n")
        assert active_model.version(config.models_dir) == good
        assert recollect("activate", poor, "--force")[0] == 0
        assert recollect("activate", poor)[0] == 0
        assert active_model.version(config.models_dir) == poor
        assert recollect("activate", good)[0] == 0

    @pytest.mark.parametrize("measures", [{}, [], {"held_back": None, "ndcg@10": 0.1}, {"ndcg@10": 0.1, "baseline": 1}])
    def test_what_was_not_measured_is_not_judged(
        self, recollect: Recollect, config: Config, measures: dict[str, Any]
    ) -> None:
        """Older releases recorded less, and manifests can be edited."""
        version, _ = trained(config), trained(config)
        path = config.models_dir / version / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "measures": measures}))
        assert recollect("activate", version)[0] == 0

    def test_the_figures_of_an_older_release_are_judged(self, recollect: Recollect, config: Config) -> None:
        """It recorded both, and no reason."""
        version, _ = trained(config), trained(config)
        path = config.models_dir / version / "manifest.json"
        figures = {"ndcg@10": 0.05, "baseline": {"ndcg@10": 0.1}, "held_back": None}
        path.write_text(json.dumps({**json.loads(path.read_text()), "measures": figures}))
        code, _, err = recollect("activate", version)
        assert (code, "its NDCG@10 is 0.0500, and that of popularity 0.1000" in err) == (3, True)


@pytest.mark.parametrize("argv", [("activate",), ("list", "--nonsense"), ("delete",), ("show", "a", "b")])
def test_bad_usage(recollect: Recollect, argv: tuple[str, ...]) -> None:
    """Exit 2 with one sentence."""
    code, out, err = recollect(*argv)
    assert (code, out, err.count("\n")) == (2, "", 1)


class TestRoles:
    def test_each_role_has_a_version_of_the_same_space(
        self, recollect: Recollect, config: Config, make_snapshot: Callable[..., ModelSnapshot]
    ) -> None:
        """Another space is refused for one role with a sentence and status 3; the list shows which role serves what."""

        def published(seed: int) -> str:
            return publication.publish(config.models_dir, make_snapshot(seed=seed), data={}, measures={})

        first, same, other = published(0), published(0), published(1)
        no_factors = trained(config, activate=False)
        assert recollect("activate", first)[0] == 0
        assert recollect("activate", same, "--role", "ranking")[1].startswith(f"{same} is active for the role ranking;")
        code, _, err = recollect("activate", other, "--role", "candidates")
        assert code == 3
        assert "which the role ranking serves" in err
        assert recollect("activate", no_factors, "--role", "candidates")[0] == 3
        assert {version: row["roles"] for version, row in _listed(recollect).items() if row["active"]} == {
            first: "candidates",
            same: "ranking",
        }
        heading, *lines = recollect("list")[1].splitlines()
        assert heading.split()[:2] == ["version", "role"]
        # Versions of one second are in the order of their random suffixes.
        assert sorted(line.split()[:3] for line in lines if line.startswith("*")) == sorted(
            [["*", first, "candidates"], ["*", same, "ranking"]]
        )
        answer = json.loads(recollect("activate", other, "--role", "candidates", "--force", "--json")[1])
        assert answer == {"active": other, "before": first, "role": "candidates"}
        # For all, without a reason against it.
        assert recollect("activate", other)[0] == 0
        assert {version for version, row in _listed(recollect).items() if row["active"]} == {other}
        assert "roles" not in _listed(recollect)[other]


def _listed(recollect: Recollect) -> dict[str, dict[str, Any]]:
    return {row["version"]: row for row in json.loads(recollect("list", "--json")[1])}
