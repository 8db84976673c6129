"""Settings: one table, read once, and documented."""

import re
from pathlib import Path

import pytest

from ops.options.environment import TABLES
from ops.pages.settings_page import render
from service.config import from_env
from service.declared_settings import declared, read
from service.errors import UsageError
from service.replica import serve


def test_the_environment_overrides_the_defaults() -> None:
    """Every kind of value is read; paths become absolute; an empty variable counts as absent."""
    config = from_env(
        {
            "RECOLLECT_HOME": "somewhere",
            "RECOLLECT_REPLICA_PORT": "9001",
            "RECOLLECT_BODY_TIMEOUT_S": "0.5",
            "RECOLLECT_REDIS_URL": "redis://127.0.0.1:7000/0",
            "RECOLLECT_TELEMETRY_BATCH_EVENTS": "17",
            "RECOLLECT_LOG_LEVEL": "",
        }
    )
    assert config.home == Path.cwd() / "somewhere"
    assert (config.server.port, config.server.body_timeout_s, config.producer.batch_events) == (9001, 0.5, 17)
    assert config.stream_url == "redis://127.0.0.1:7000/0"
    assert config.log.level == "info"


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [("RECOLLECT_REPLICA_PORT", "80.5", "a whole number"), ("RECOLLECT_BODY_TIMEOUT_S", "soon", "a number")],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(name: str, text: str, kind: str) -> None:
    """The sentence says which variable, what it must be and what it was."""
    with pytest.raises(UsageError, match=f"{name} must be {kind}, not '{text}'"):
        from_env({name: text})


@pytest.mark.parametrize("text", ["5", "5:1", "1:1", "a:b", "1:nan", "1:5:9", "-inf:1", ":"])
def test_a_rating_scale_is_two_numbers_in_order(text: str) -> None:
    """Anything else is refused by name, before any command does its work."""
    with pytest.raises(UsageError, match=f"RECOLLECT_RATING_SCALE must be LOW:HIGH, .* not '{text}'"):
        from_env({"RECOLLECT_RATING_SCALE": text})


def test_the_addresses_of_the_candidates_service_are_checked() -> None:
    """The ranking role cannot go without any."""
    given = {"HOME": "/h", "RECOLLECT_CANDIDATES_URLS": " http://127.0.0.1:1, https://finder.example/below ,"}
    assert from_env(given).candidates.addresses == ("http://127.0.0.1:1", "https://finder.example/below")
    for wrong in ("127.0.0.1:1", "ftp://finder", "http://", "http://[::1", "http://ann:secret@127.0.0.1:1"):
        with pytest.raises(UsageError, match="is no http or https URL") as refused:
            from_env({"HOME": "/h", "RECOLLECT_CANDIDATES_URLS": wrong})
        assert "secret" not in str(refused.value)
    with pytest.raises(UsageError, match="RECOLLECT_ROLE must be all, candidates or ranking, not 'rank'"):
        from_env({"HOME": "/h", "RECOLLECT_ROLE": "rank"})
    with pytest.raises(UsageError, match="The role ranking needs the addresses of the candidates service"):
        serve(from_env({"HOME": "/h", "RECOLLECT_ROLE": "ranking"}), 0)


def test_a_declared_rating_scale_is_read() -> None:
    """Also one that begins below zero; none where none was declared."""
    assert from_env({"HOME": "/h", "RECOLLECT_RATING_SCALE": "-10:10"}).models.declared_scale == (-10.0, 10.0)
    assert from_env({"HOME": "/h"}).models.declared_scale is None


@pytest.mark.parametrize(
    ("name", "text", "bound"),
    [
        ("RECOLLECT_REPLICA_PORT", "0", "from 1 to 65535"),
        ("RECOLLECT_ADMIN_PORT", "65536", "from 1 to 65535"),
        ("RECOLLECT_LOG_QUEUE_LINES", "0", "above 0 and finite"),
        ("RECOLLECT_MODEL_WATCH_INTERVAL_S", "-1", "above 0 and finite"),
        ("RECOLLECT_KEEPALIVE_TIMEOUT_S", "nan", "above 0 and finite"),
        ("RECOLLECT_DRAIN_TIMEOUT_S", "inf", "above 0 and finite"),
        ("RECOLLECT_TELEMETRY_SERVED_SHARE", "1.5", "from 0 to 1"),
        ("RECOLLECT_LOG_FILE_COUNT", "-1", "from 0 to 1000"),
    ],
)
def test_a_number_that_its_unit_does_not_allow_is_refused_by_name(name: str, text: str, bound: str) -> None:
    """A queue of 0 lines would be one without a limit, a pause of NaN one without an end."""
    with pytest.raises(UsageError, match=f"{name} must be {bound}, not {text}"):
        from_env({name: text})


def test_a_namespace_that_redis_would_misread_is_refused_by_name() -> None:
    """It is part of every key, and of the patterns in Redis' list of users."""
    assert from_env({"HOME": "/h", "RECOLLECT_REDIS_NAMESPACE": "shop-2"}).redis_namespace == "shop-2"
    with pytest.raises(UsageError, match="RECOLLECT_REDIS_NAMESPACE: The Redis namespace 'a:b' is invalid"):
        from_env({"RECOLLECT_REDIS_NAMESPACE": "a:b"})


def test_the_defaults_are_values_that_may_be_given() -> None:
    """Writing a default into the environment changes nothing."""
    for table in TABLES.values():
        given = {s.label: str(s.default) for s in declared(table) if s.default is not None}
        assert read(table, given) == read(table, {})


def test_every_setting_has_its_name_unit_and_sentence_and_is_unique() -> None:
    """RECOLLECT_ names, units that are not empty, one sentence each."""
    settings = [setting for table in TABLES.values() for setting in declared(table)]
    names = [setting.label for setting in settings]
    assert len(names) == len(set(names))
    for setting in settings:
        assert re.fullmatch(r"RECOLLECT_[A-Z0-9_]+", setting.label)
        assert setting.unit
        assert re.fullmatch(r"[A-Z].*\.", setting.doc), setting.label


def test_the_docs_match_every_setting() -> None:
    """docs/settings.md has the names, defaults, units and sentences of the code."""
    assert (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8") == render()
