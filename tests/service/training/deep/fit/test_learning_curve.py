from service.training.deep.fit.learning_curve import LearningCurve


def test_a_long_curve_is_thinned_and_keeps_its_best_and_last_epoch() -> None:
    """A manifest of thousands of epochs stays small."""
    curve = LearningCurve("rmse", larger_is_better=False)
    curve.losses = [1.0] * 9998
    curve.values = [0.9] * 9998
    curve.values[4321] = 0.5
    points = curve.as_json()
    assert 490 < len(points) <= 502
    assert [point["epoch"] for point in points if point["kept"]] == [4322]
    assert (points[0]["epoch"], points[-1]["epoch"]) == (1, 9998)


def test_a_curve_without_an_epoch_has_no_point() -> None:
    """Before the first."""
    assert LearningCurve().as_json() == []
