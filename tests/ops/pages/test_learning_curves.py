from typing import Any

from ops.pages import learning_curves

CURVE = [
    {"epoch": 1, "loss": 0.9, "ndcg@10": 0.10, "kept": False},
    {"epoch": 2, "loss": 0.7, "ndcg@10": 0.14, "kept": True, "ranker_gain": 0.01, "ranker_gain_error": 0.02},
    {"epoch": 3, "loss": 0.6, "ndcg@10": 0.13, "kept": False},
]


def result(label: str, curves: list[Any]) -> dict[str, Any]:
    return {"algorithm": "sequence", "label": label, "learning_curves": curves}


def test_each_quantity_of_a_network_has_a_plot_with_a_mark_for_each_epoch() -> None:
    """The loss and the validation; the caption says which epoch is kept, and of which split."""
    loss, validation = learning_curves.figures([result("net", [CURVE, CURVE])])
    assert (loss.title, validation.title) == ("net: loss by epoch", "net: ndcg@10 by epoch")
    assert loss.caption == "Epoch 2 is kept. On the first of 2 splits."
    drawn = repr(validation.plot)
    for epoch, value in ((1, "0.1000"), (2, "0.1400"), (3, "0.1300")):
        assert f"net, epoch {epoch}: ndcg@10 {value}" in drawn


def test_a_curve_of_one_epoch_without_a_validation_is_a_plot() -> None:
    """Of one point; what a ranker gains is no quantity by epoch."""
    point = {"epoch": 1, "loss": 0.5, "kept": True, "ranker_gain": 0.01, "ranker_gain_error": 0.02}
    (loss,) = learning_curves.figures([result("net", [[point]])])
    assert loss.caption == "Epoch 1 is kept."


def test_other_algorithms_have_no_plot() -> None:
    """Nor results of an older release."""
    assert not list(learning_curves.figures([result("svd", [[], []]), {"algorithm": "svd", "label": "svd"}]))
