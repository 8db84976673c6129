"""The benchmark of workers compares like with like."""

from ops.benchmarks.fits import worker_fits
from service.training.algorithms.registry import ConfiguredAlgorithm


def test_workers_and_threads_are_compared_fit_by_fit() -> None:
    """Tables are compared by their bytes, and what was exchanged is counted."""
    candidate = ConfiguredAlgorithm.parse("ials", ("n_factors=8", "n_epochs=2"))
    notes: list[str] = []
    alone, worker = worker_fits.run("demo:300x100x3000", [candidate], [1], 2, notes.append, "demo:40x30x400")
    assert (alone.by_workers, worker.by_workers) == (False, True)
    assert len(notes) == 4
    assert [len(fit.seconds) for fit in (alone, worker)] == [2, 2]
    assert alone.digests == worker.digests
    assert len(alone.digests) == 1
    # A half epoch of 300 users is a task, one of 100 items another; the served users are solved at the end.
    assert {name: stage["n_tasks"] for name, stage in worker.stages.items()} == {
        "ials: users": 2,
        "ials: items": 2,
        "ials: served users": 1,
    }
    assert 300 * 8 * 4 < worker.stages["ials: served users"]["result_bytes"] < 300 * 8 * 4 + 1000
    # Both tables are put once for each half epoch that they are fixed in, besides the interactions.
    assert worker.put_bytes > (3 * 100 + 2 * 300) * 8 * 4
    assert [row[7] for row in worker_fits.rows([alone, worker])] == ["equal", "equal"]


def test_parts_of_results_are_counted() -> None:
    """SVD exchanges them: the factors of each group of users and of items, once in each of three rounds."""
    candidate = ConfiguredAlgorithm.parse("svd", ("n_factors=8", "n_epochs=2", "n_groups=3"))
    _, worker = worker_fits.run("demo:300x100x3000", [candidate], [1], 1, lambda _: None, "demo:40x30x400")
    (stage,) = worker.stages.values()
    assert stage["n_tasks"] == 2 * 3 * 3
    assert 1 < stage["result_bytes"] / (2 * 3 * (300 + 100) * (8 + 1) * 4) < 1.2
