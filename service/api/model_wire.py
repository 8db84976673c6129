"""The shape of the served model as published."""

from typing import Annotated, Any

# Before Python 3.12 pydantic cannot use the TypedDict of typing.
from typing_extensions import TypedDict

from service.api.wire import described


class DataSet(TypedDict, total=False):
    """The training data of a model."""

    source: Annotated[str, described("The file or other source.")]
    fingerprint: Annotated[str, described("A digest, equal for equal data.")]
    n_users: Annotated[int, described("Number of users.")]
    n_items: Annotated[int, described("Number of items.")]
    n_ratings: Annotated[int, described("Number of interactions.")]
    bad_rows: Annotated[int, described("Rows left out as unreadable.")]
    duplicates: Annotated[int, described("Rows left out for a later one of the same user and item.")]
    rating_min: Annotated[float, described("The lowest rating.")]
    rating_max: Annotated[float, described("The highest rating.")]


class Selection(TypedDict):
    """How the algorithm of the model was chosen."""

    requested: Annotated[str, described("The name that was asked for; `auto` leaves the choice to the measures.")]
    chosen: Annotated[str, described("The algorithm, with the settings that differ from the defaults.")]
    why: Annotated[str, described("The reason, as the end of a sentence.")]
    candidates: Annotated[
        list[dict[str, Any]],
        described("Algorithm, settings, measures and seconds of each candidate; empty for a named algorithm."),
    ]
    holdout: Annotated[dict[str, Any] | None, described("What the candidates were judged on.")]
    budget_s: Annotated[float | None, described("How long measuring could take, in seconds.")]
    took_s: Annotated[float | None, described("How long it took.")]
    sampled_users: Annotated[int | None, described("How many users represented the data; null for all.")]


class ServedModel(TypedDict):
    """The served model as published."""

    version: Annotated[str, described("The version, which every list names.")]
    algorithm: Annotated[str, described("The algorithm.")]
    settings: Annotated[dict[str, Any], described("The hyperparameters by name.")]
    measures: Annotated[dict[str, Any], described("The measures on held-out ratings by name; null if not measured.")]
    selection: Annotated[
        Selection | None, described("How the algorithm was chosen; null in a model of an older release.")
    ]
    data: Annotated[DataSet, described("The training data.")]
    created: Annotated[str, described("The time of publication, RFC 3339.")]
    data_as_of: Annotated[str, described("The latest interaction in the training data, RFC 3339.")]
    n_users: Annotated[int, described("Number of users.")]
    n_items: Annotated[int, described("Number of items.")]
    n_factors: Annotated[int, described("Number of factors; 0 for a model without factors.")]
    embedding_space: Annotated[
        str | None,
        described("The fingerprint of its embedding space, for candidates; null for a model without factors."),
    ]
    user_features: Annotated[list[str], described("The features of users that lists answer to, by name.")]
