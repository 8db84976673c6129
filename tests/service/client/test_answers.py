"""The types of the client are those of the API."""

import dataclasses
import typing
from typing import Any

import pytest

from service.api import item_wire, list_bodies, model_wire, user_wire, wire
from service.api.used_features import UsedFeatures
from service.client import answers, inputs


def optional(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (answers.BecauseItem, wire.BecauseItem),
        (answers.Because, wire.Because),
        (answers.Item, wire.Item),
        (answers.Freshness, wire.Freshness),
        (answers.Shortfall, wire.Shortfall),
        (answers.UsedFeatures, UsedFeatures),
        (answers.Recommendations, wire.Recommendations),
        (answers.Lists, wire.ManyRecommendations),
        (answers.Accepted, wire.Accepted),
        (answers.Erasure, wire.Erasure),
        (answers.ServedModel, model_wire.ServedModel),
        (answers.FieldError, wire.FieldError),
        (answers.ItemDetails, item_wire.ItemDetails),
        (answers.ItemReceipt, item_wire.ItemReceipt),
        (answers.Accepted, item_wire.ItemsAccepted),
        (answers.Interaction, user_wire.Interaction),
        (answers.KnownUser, user_wire.KnownUser),
    ],
)
def test_answers_have_the_fields_of_the_api(ours: type[Any], theirs: type[Any]) -> None:
    """All of them; one that the service may leave out, or send as null, may be None."""
    hints, known = typing.get_type_hints(ours), typing.get_type_hints(theirs)
    assert list(hints) == list(known)
    for name, hint in known.items():
        may_lack = name not in theirs.__required_keys__
        assert optional(hints[name]) == (optional(hint) or may_lack), name
        default = next(field for field in dataclasses.fields(ours) if field.name == name).default
        assert not may_lack or default is None, name


def test_inputs_have_the_fields_of_the_api() -> None:
    """A new field of a request is one of the client's, too."""
    for ours, theirs in (
        (inputs.Event, wire.EventIn),
        (inputs.Boost, list_bodies.BoostIn),
        (inputs.Pin, list_bodies.PinIn),
        (inputs.SessionItem, list_bodies.SessionItemIn),
        (inputs.ItemRecord, item_wire.ItemIn),
    ):
        assert {field.name for field in dataclasses.fields(ours)} == set(theirs.model_fields)
    options = typing.get_type_hints(inputs.ListOptions)
    assert {*options, "user_id", "n"} == set(list_bodies.RecommendationsRequest.model_fields)
    kinds = typing.get_args(wire.EventIn.model_fields["type"].annotation)
    assert typing.get_args(inputs.EventType) == kinds
