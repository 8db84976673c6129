import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.config import Config, ModelConfig
from service.errors import DataError, RunError, TrainingDiverged, UsageError
from service.models.files import active_model, artefact, versions
from service.models.history.rating_scale import RatingScale
from service.training import pipeline
from service.training.data import datasets
from service.training.interactions import Interactions
from service.training.popularity.counts import decayed
from service.training.selection.candidates import CANDIDATES

ROOT = Path(__file__).resolve().parents[3]
DEMO = "demo:60x40x900"
SMALL = ("n_factors=4", "n_epochs=3")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "var")


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def chosen_by_taste(n_users: int, n_items: int, n: int) -> list[str]:
    """Return ratings of items that users chose because they like them, so that who predicts ratings ranks well."""
    rng = np.random.default_rng(0)
    users, items = np.divmod(np.arange(n_users * n_items), n_items)
    stars = 3 + 2 * np.sin(users) * np.cos(items * 2)
    weights = np.exp(2 * stars)
    pairs = rng.choice(stars.size, n, replace=False, p=weights / weights.sum())
    return [f"{users[pair]},{items[pair]},{stars[pair]:.3f}\n" for pair in pairs.tolist()]


class TestTrain:
    def test_publishes_activates_and_measures(self, config: Config) -> None:
        """The manifest describes the data and the measures on a tenth of it; the model loads and is active."""
        manifest = pipeline.train(config, data=DEMO, algorithm="svd", settings=SMALL, seed=3, activate=True)
        assert manifest["data"] == {
            "source": DEMO,
            "fingerprint": datasets.fingerprint(DEMO),
            "n_users": 60,
            "n_items": 40,
            "n_ratings": 900,
            "bad_rows": 0,
            "duplicates": 0,
            "rating_min": 0.5,
            "rating_max": 5.0,
            "rated_share": 1.0,
            "scale_from": "data",
            "seed": 3,
            "popularity_half_life_days": None,
        }
        held_out = manifest["measures"]["holdout"]
        assert held_out == {"split": "time-per-user", "share": 0.1, "n": held_out["n"], "users": 60}
        assert 60 <= held_out["n"] <= 120
        assert manifest["measures"]["rmse"] < manifest["measures"]["baseline"]["rmse"]
        assert manifest["measures"]["ndcg@10"] < manifest["measures"]["baseline"]["ndcg@10"]
        assert "worse than lists by popularity" in manifest["measures"]["held_back"]
        assert 0.3 < manifest["measures"]["mae"] < manifest["measures"]["rmse"] < 1.5
        assert manifest["settings"]["n_factors"] == 4
        assert active_model.version(config.models_dir) == manifest["version"]
        snapshot = artefact.load(config.models_dir / manifest["version"])
        assert snapshot.history.nnz == 900
        popular = json.loads((config.models_dir / "popular.json").read_bytes())
        assert popular["model"] == manifest["version"]

    def test_popularity_decays(self, config: Config, tmp_path: Path) -> None:
        """An interaction of one half-life before the latest counts half."""
        day_s = 86400
        text = f"user,item,rating,timestamp\na,old,5,0\nb,old,5,0\na,new,1,{10 * day_s}\n"
        config = Config(home=config.home, models=ModelConfig(popularity_half_life_days=10))
        manifest = pipeline.train(config, data=write(tmp_path / "t.csv", text), algorithm="svd", settings=SMALL)
        snapshot = artefact.load(config.models_dir / manifest["version"])
        assert dict(zip(snapshot.items.id_of, snapshot.popularity.tolist(), strict=True)) == {"old": 1.0, "new": 1.0}
        assert manifest["data"]["popularity_half_life_days"] == 10
        assert manifest["data_as_of"] == "1970-01-11T00:00:00.000Z"
        assert manifest["data"]["source"] == "t.csv"
        wrong_clock = "far,new,1,9999999999\n" + "".join(f"u{i},{'ab'[i % 3 > 0]},1,1000\n" for i in range(1200))
        few_wrong = decayed(datasets.read(write(tmp_path / "w.csv", wrong_clock)), 10)
        assert few_wrong.tolist() == [1.0, 400.0, 800.0]
        untimed = datasets.read(write(tmp_path / "u.csv", "a,old\nb,old\na,new\n"))
        assert decayed(untimed, 10).tolist() == [2.0, 1.0]

    def test_stages_are_reported(self, config: Config) -> None:
        """Generating, measuring and fitting, each from start to end."""
        steps: list[tuple[str, int, int]] = []
        read: list[object] = []
        pipeline.train(
            config,
            data=DEMO,
            algorithm="svd",
            settings=SMALL,
            progress=lambda *step: steps.append(step),
            on_read=read.append,
        )
        stages = list(dict.fromkeys(stage for stage, _, _ in steps))
        assert stages == ["generate", "measure", "fit"]
        assert {stage for stage, done, total in steps if done == total} == set(stages)
        assert repr(read) == "[<Interactions 900 ratings, 60 users, 40 items>]"

    def test_the_same_seed_gives_the_same_model(self, config: Config) -> None:
        """In another version; another seed gives another model."""
        first, same, other = (
            pipeline.train(config, data=DEMO, algorithm="svd", settings=SMALL, seed=seed) for seed in (1, 1, 2)
        )
        assert first["version"] != same["version"]
        assert first["arrays"] == same["arrays"] != other["arrays"]
        assert first["measures"] == same["measures"] != other["measures"]

    @pytest.mark.parametrize("text", ["a,b,3\n", "a,b,3\na,c,4\nd,b,1\n", "a,b\n"])
    def test_too_little_to_measure_still_trains(self, config: Config, tmp_path: Path, text: str) -> None:
        """One user, one item, one rating: published, with a note on the missing measures."""
        manifest = pipeline.train(config, data=write(tmp_path / "t.csv", text))
        assert manifest["measures"] == {
            "rmse": None,
            "mae": None,
            "ndcg@10": None,
            "recall@20": None,
            "baseline": None,
            "active": None,
            "held_back": None,
            "holdout": {
                "split": None,
                "share": 0.1,
                "n": 0,
                "users": 0,
                "note": "There are too few ratings to set any aside.",
            },
        }
        assert manifest["algorithm"] == "popularity"
        assert manifest["selection"]["why"] == "nothing could be measured"
        assert active_model.version(config.models_dir) == manifest["version"]

    @pytest.mark.parametrize("algorithm", [None, "ials", "svd"])
    def test_data_without_ratings_gets_a_model_that_ranks(
        self, config: Config, tmp_path: Path, algorithm: str | None
    ) -> None:
        """By default and by name; a model that predicts ratings is refused, with the names of those that rank."""
        path = write(tmp_path / "t.csv", "".join(f"u{n % 30},i{n * 7 % 20}\n" for n in range(300)))
        if algorithm == "svd":
            with pytest.raises(
                DataError, match=r"has no ratings, and svd predicts ratings.*use auto, the default of train and up"
            ):
                pipeline.train(config, data=path, algorithm=algorithm, settings=SMALL)
            assert versions.published(config.models_dir) == []
            return
        settings = ["n_factors=4"] if algorithm else []
        manifest = pipeline.train(config, data=path, algorithm=algorithm, settings=settings)
        assert manifest["algorithm"] in ({algorithm} if algorithm else {candidate.name for candidate in CANDIDATES})
        assert manifest["data"]["rated_share"] == 0

    def test_equal_ratings_warn(self, config: Config, tmp_path: Path) -> None:
        """The named algorithm is fitted; its errors have no meaning and are null."""
        path = write(tmp_path / "t.csv", "".join(f"u{n % 30},i{n * 7 % 20},1\n" for n in range(300)))
        read: list[Interactions] = []
        manifest = pipeline.train(config, data=path, algorithm="svd", settings=SMALL, on_read=read.append)
        assert "has the rating 1 throughout, so that svd" in " ".join(read[0].report.notes)
        assert (manifest["measures"]["rmse"], manifest["measures"]["mae"]) == (None, None)

    @pytest.mark.parametrize("algorithm", [None, "auto"])
    def test_a_setting_without_a_name_is_refused_before_reading(self, config: Config, algorithm: str | None) -> None:
        """The candidates have their own."""
        with pytest.raises(UsageError, match="name it with --algorithm"):
            pipeline.train(config, data="/nowhere", algorithm=algorithm, settings=["n_factors=3"])

    def test_a_declared_scale_clips(self, config: Config, tmp_path: Path) -> None:
        """Ratings outside are clipped, counted and named; the model has the declared scale."""
        rows = [f"u{n % 20},i{n * 7 % 30},{n % 4 + 1}" for n in range(200)]
        path = write(tmp_path / "t.csv", "\n".join([*rows, "eve,i1,99", "eve,i2,-7"]))
        read: list[Interactions] = []
        scale = RatingScale(1, 5)
        manifest = pipeline.train(config, data=path, algorithm="svd", settings=SMALL, scale=scale, on_read=read.append)
        assert (manifest["rating_min"], manifest["rating_max"]) == (1.0, 5.0)
        assert manifest["data"]["scale_from"] == "declared"
        (note,) = read[0].report.notes
        assert note == (
            "2 ratings lie outside of the scale 1 to 5, declared, and counted as its nearest end, "
            "such as 99 by 'eve' of 'i1', -7 by 'eve' of 'i2'."
        )
        snapshot = artefact.load(config.models_dir / manifest["version"])
        assert snapshot.history.data.max() == 5.0

    def test_a_model_that_is_much_worse_is_not_activated(self, config: Config, tmp_path: Path) -> None:
        """It is published with the reason; `activate` overrides; a model of the demo data is not defended.

        On the same data the active model has learnt what is held out, so that its settings are fitted again.
        """
        path = write(tmp_path / "t.csv", "".join(chosen_by_taste(80, 60, 2400)))
        bad = ("n_factors=4", "init_std_dev=3", "lr_all=0", "n_epochs=1")
        pipeline.train(config, data=DEMO, algorithm="popularity")
        good = pipeline.train(config, data=path, algorithm="svd", settings=("n_factors=4", "lr_all=0.02"))
        assert active_model.version(config.models_dir) == good["version"]
        worse = pipeline.train(config, data=path, algorithm="svd", settings=bad)
        compared = worse["measures"]["active"]
        assert (compared["version"], compared["how"]) == (good["version"], "refitted")
        assert compared["ndcg@10"] == pytest.approx(good["measures"]["ndcg@10"])
        assert f"that of {good['version']}, the active model, fitted again" in worse["measures"]["held_back"]
        assert active_model.version(config.models_dir) == good["version"]
        assert worse["version"] in versions.published(config.models_dir)
        forced = pipeline.train(config, data=path, algorithm="svd", settings=bad, activate=True)
        assert forced["measures"]["held_back"] is not None
        assert active_model.version(config.models_dir) == forced["version"]

    def test_both_models_are_compared_on_what_neither_has_learnt(self, config: Config, tmp_path: Path) -> None:
        """If there is enough of it, their lists are compared as they are published."""
        rows = chosen_by_taste(80, 60, 2400)
        half, whole = write(tmp_path / "half.csv", "".join(rows[:1000])), write(tmp_path / "whole.csv", "".join(rows))
        good = ("n_factors=4", "lr_all=0.02")
        first = pipeline.train(config, data=half, algorithm="svd", settings=good)
        worse = pipeline.train(config, data=whole, algorithm="popularity")
        compared = worse["measures"]["active"]
        assert (compared["version"], compared["how"]) == (first["version"], "published")
        assert 100 <= compared["n"] < worse["measures"]["holdout"]["n"]
        assert f"neither model has learnt its NDCG@10 is {compared['new']:.4f}, and" in worse["measures"]["held_back"]
        assert active_model.version(config.models_dir) == first["version"]
        better = pipeline.train(config, data=whole, algorithm="svd", settings=good)
        assert active_model.version(config.models_dir) == better["version"]

    def test_not_activated_it_is_only_published(self, config: Config) -> None:
        """The active version stays."""
        active = pipeline.train(config, data=DEMO, algorithm="popularity")
        other = pipeline.train(config, data=DEMO, algorithm="svd", settings=SMALL, activate=False)
        assert active_model.version(config.models_dir) == active["version"]
        assert set(versions.published(config.models_dir)) == {active["version"], other["version"]}

    @pytest.mark.parametrize(
        ("data", "algorithm", "settings", "error"),
        [
            ("/nowhere", "svd", (), DataError),
            ("/nowhere", "magic", (), UsageError),
            ("/nowhere", "svd", ("depth=3",), UsageError),
            (DEMO, "svd", ("lr_all=10",), TrainingDiverged),
        ],
    )
    def test_a_failed_training_leaves_nothing(
        self, config: Config, data: str, algorithm: str, settings: tuple[str, ...], error: type[Exception]
    ) -> None:
        """No version, no temporary directory, no ACTIVE; settings are refused before data is read."""
        with pytest.raises(error):
            pipeline.train(config, data=data, algorithm=algorithm, settings=settings)
        assert not config.models_dir.exists() or not list(config.models_dir.iterdir())

    def test_a_place_that_cannot_be_written_is_one_sentence(self, config: Config) -> None:
        """The message names the directory."""
        config.home.mkdir()
        config.models_dir.write_text("in the way")
        with pytest.raises(RunError, match=r"cannot be published in .*models: File exists"):
            pipeline.train(config, data=DEMO, algorithm="svd", settings=SMALL)

    def test_that_it_cannot_be_written_is_known_before_the_fit(self, config: Config) -> None:
        """A training whose model cannot be kept ends early."""
        config.home.mkdir()
        config.models_dir.write_text("in the way")
        stages: set[str] = set()
        with pytest.raises(RunError):
            pipeline.train(config, data=DEMO, algorithm="svd", progress=lambda stage, *_: stages.add(stage))
        assert stages == {"generate"}

    def test_a_killed_training_leaves_no_version(self, config: Config) -> None:
        """The next training removes the temporary of one killed while writing."""
        program = (
            "import os, signal, sys; from pathlib import Path; from service.config import Config; "
            "from service.models.files import published_files as files; from service.training import pipeline\n"
            "write = files.write\n"
            "def deadly(path, content):\n"
            "    write(path, content)\n"
            "    if path.name == 'item_factors.bin': os.kill(os.getpid(), signal.SIGKILL)\n"
            "files.write = deadly\n"
            f"pipeline.train(Config(home=Path(sys.argv[1])), data={DEMO!r}, algorithm='svd', settings={SMALL!r})"
        )
        killed = subprocess.run([sys.executable, "-c", program, str(config.home)], cwd=ROOT)
        assert killed.returncode == -signal.SIGKILL
        assert len(list(config.models_dir.glob(".svd-*.tmp"))) == 1
        assert versions.published(config.models_dir) == []
        manifest = pipeline.train(config, data=DEMO, algorithm="svd", settings=SMALL)
        assert not list(config.models_dir.glob(".*.tmp"))
        assert versions.published(config.models_dir) == [manifest["version"]]

    def test_threads_change_nothing(self, config: Config) -> None:
        """The same seed gives the same bytes with any number of threads of numba and BLAS."""
        program = (
            "import json, sys; from pathlib import Path; from service.config import Config; "
            "from service.training import pipeline; "
            f"manifest = pipeline.train(Config(home=Path(sys.argv[1])), data={DEMO!r}, algorithm='svd', seed=5); "
            "print(json.dumps([manifest['arrays'], manifest['measures']]))"
        )
        results = {
            subprocess.run(
                [sys.executable, "-c", program, str(config.home)],
                cwd=ROOT,
                env={**os.environ, "NUMBA_NUM_THREADS": n_threads, "OPENBLAS_NUM_THREADS": n_threads},
                capture_output=True,
                check=True,
            ).stdout
            for n_threads in ("1", "2")
        }
        assert len(results) == 1

    def test_two_trainings_at_once(self, config: Config) -> None:
        """All versions are complete, and the static lists are those of the active one."""
        program = (
            "import sys; from pathlib import Path; from service.config import Config; "
            "from service.training import pipeline; "
            f"pipeline.train(Config(home=Path(sys.argv[1])), data={DEMO!r}, algorithm='svd', settings={SMALL!r}, "
            "activate=True)"
        )
        running = [subprocess.Popen([sys.executable, "-c", program, str(config.home)], cwd=ROOT) for _ in range(3)]
        assert [process.wait(60) for process in running] == [0, 0, 0]
        found = versions.published(config.models_dir)
        assert len(found) == 3
        for version in found:
            artefact.load(config.models_dir / version)
        popular = json.loads((config.models_dir / "popular.json").read_bytes())
        assert popular["model"] == active_model.version(config.models_dir)
