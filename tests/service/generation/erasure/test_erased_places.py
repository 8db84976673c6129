"""Erased users are found among many, as the list of erased users finds them one by one."""

import pytest

from service.generation.erasure.erased_places import ErasedPlaces
from service.models.files.erased_users import ErasedUsers
from service.models.vocabulary import Vocabulary
from telemetry.pseudonym import Pseudonymiser

IDS = [f"u{number}" for number in range(300)]


@pytest.mark.parametrize("key", [None, b"k" * 32])
def test_places_are_those_of_the_list(key: bytes | None) -> None:
    """By the id or its pseudonym, with the later time of both; other salts, unknown users and damaged digests."""
    pseudonyms = Pseudonymiser(key)
    places = ErasedPlaces(IDS, pseudonyms)
    both = {"u7", pseudonyms.pseudonym("u7")}
    for salt in (b"a" * 32, b"b" * 32):
        first = ErasedUsers(salt, {"": 1, "p-é": 2}).with_erased({"u7", "u299", "unknown"}, 1000)
        listed = first.with_erased({pseudonyms.pseudonym("u7"), pseudonyms.pseudonym("u0")}, 2000)
        assert places.of(ErasedUsers(salt, {})) == {}
        found = places.of(listed)
        assert found == listed.erased_rows(Vocabulary(IDS), pseudonyms)
        assert {place: at.listed_s for place, at in found.items()} == {0: 2000, 7: 2000, 299: 1000}
        # Only what has changed: the time of u7 and u0.
        assert places.of(listed.since(first)) == {place: found[place] for place in (0, 7)}
        assert places.of(listed.with_permanent(both).since(listed)) == {}
        assert places.of(listed.since(ErasedUsers(b"c" * 32, {}))) == found


def test_no_users() -> None:
    """A generation may have none."""
    assert ErasedPlaces([], Pseudonymiser()).of(ErasedUsers(b"a" * 32, {"p-1": 1})) == {}
