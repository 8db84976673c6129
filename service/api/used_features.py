"""The shape of what became of a request's features of the user."""

from typing import Annotated

from pydantic import Field

# Before Python 3.12 pydantic cannot use the TypedDict of typing.
from typing_extensions import TypedDict


class UsedFeatures(TypedDict):
    """What became of the features of the user that a request gave, by name."""

    used: Annotated[list[str], Field(description="The list answers to them.")]
    unknown: Annotated[
        list[str],
        Field(description="The served model does not know the feature, or not this value, which counts as unknown."),
    ]
