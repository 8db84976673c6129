"""The body and the answer of `POST /v1/candidates`."""

from typing import Annotated, Final

from pydantic import Field
from typing_extensions import TypedDict

from service.api.list_bodies import BOOSTS_LIMIT, FILTER_EXAMPLE, FILTER_LIMIT, BoostIn
from service.api.wire import IDS_LIMIT, Body, Integer, Time, described

CANDIDATES_DEFAULT: Final = 100
CANDIDATES_LIMIT: Final = 10_000
EXCLUDE_LIMIT: Final = 2 * IDS_LIMIT
_VECTOR_LIMIT: Final = 4_096
# Larger numbers belong to no model, and their products might be infinite.
_NUMBER_LIMIT: Final = 1e6
_CONSTANT_LIMIT: Final = 1e12
_Number = Annotated[float, Field(ge=-_NUMBER_LIMIT, le=_NUMBER_LIMIT, allow_inf_nan=False)]
# An id that cannot be one is of no item, and most requests have many: so they are not checked.
_ItemId = Annotated[str, Field(max_length=128)]


class CandidatesRequest(Body):
    """The items nearest to a vector of the model's embedding space."""

    vector: list[_Number] = Field(
        min_length=1,
        max_length=_VECTOR_LIMIT,
        description="The user's vector, one number for each factor of the model.",
    )
    embedding_space: str | None = Field(
        default=None,
        max_length=64,
        description="The fingerprint of the vector's embedding space; refused with 409 if no served model has it.",
    )
    n: Integer = Field(
        default=CANDIDATES_DEFAULT, ge=1, le=CANDIDATES_LIMIT, description="How many items at most; 100 by default."
    )
    exclude: list[_ItemId] = Field(
        default=[], max_length=EXCLUDE_LIMIT, description="Items to leave out; unknown ones are ignored."
    )
    filter: str | None = Field(
        default=None,
        min_length=1,
        max_length=FILTER_LIMIT,
        description=f"What the items must be; {FILTER_EXAMPLE}. Without it, any.",
    )
    boosts: list[BoostIn] = Field(
        default=[], max_length=BOOSTS_LIMIT, description="Factors for the scores of items; all that match apply."
    )
    factors: dict[_ItemId, Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]] = Field(
        default={}, max_length=IDS_LIMIT, description="Factors for the scores of single items, by id."
    )
    constant: Annotated[float, Field(ge=-_CONSTANT_LIMIT, le=_CONSTANT_LIMIT, allow_inf_nan=False)] = Field(
        default=0.0, description="What is added to every score before boosts, such as the mean of the user's ratings."
    )
    available_at: Time | None = Field(
        default=None, description="When the items must be available, RFC 3339; by default now."
    )


class Candidates(TypedDict):
    """The items nearest to a vector."""

    model: Annotated[str, described("The version of the model.")]
    embedding_space: Annotated[str | None, described("The fingerprint of its embedding space.")]
    catalogue_watermark: Annotated[str, described("The item changes that the answer reflects; empty for none.")]
    item_ids: Annotated[list[str], described("Best first.")]
    scores: Annotated[list[float], described("One for each item: bias, and product with the vector; higher is better.")]
