"""`recollect replay`: how a served list came about, made again from the archive, its model and its watermarks."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from threadpoolctl import threadpool_limits

from ops.console.progress import StageProgress
from ops.console.table import table
from ops.options.shared_options import JsonOption
from service.config import Config, from_env
from service.errors import ModelError, RunError, UsageError
from service.models.files import active_model, artefact, versions
from service.models.snapshot import ModelSnapshot
from service.replay.evidence import evidence_of, sampled_lists, served_list
from service.replay.rebuilding import ListedItem, Rebuilder, Rebuilt, as_recorded, rests_on_raters
from telemetry.errors import ArchiveError
from telemetry.events import Served
from telemetry.live.live_event import live_types

_MISSING = "-"


def command(
    recommendation_id: Annotated[
        str | None, typer.Argument(help="The list's `recommendation_id`, from its answer or the archive.")
    ] = None,
    *,
    sample: Annotated[
        int | None,
        typer.Option("--sample", min=1, help="Check so many random lists of the archive instead."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which lists are drawn.")] = 0,
    as_json: JsonOption = False,
) -> int:
    """Make served lists again and compare them; the status is 1 if one differs or cannot be made."""
    if (recommendation_id is None) == (sample is None):
        raise UsageError("Name one list by its recommendation_id, or give --sample.")
    config = from_env(os.environ)
    # One BLAS thread, as in a replica: more threads add in another order.
    with StageProgress() as stages, threadpool_limits(1):
        try:
            replays = replay(config, recommendation_id, sample, seed, stages)
        except ArchiveError as error:
            raise RunError(str(error)) from error
    if sample is not None:
        print_summary(replays, as_json=as_json)
    else:
        (single,) = replays
        print(json.dumps(single.as_json(), ensure_ascii=False) if as_json else single.as_text())
    return 0 if all(each.matches for each in replays) else 1


@dataclass(frozen=True)
class Replay:
    """A served list beside the same list made again.

    Attributes:
        event: The served event.
        rebuilt: The list made again.
        active: The version of the active model; None without one.
        today: The list of the same request by the active model and all events of today.
        titles: Titles of the items.
    """

    event: Served
    rebuilt: Rebuilt
    active: str | None
    today: Rebuilt | None
    titles: dict[str, str]

    @property
    def matches(self) -> bool:
        """Whether the list made again is the served one, to the last digit."""
        return not self.rebuilt.problem and self.rebuilt.items == as_recorded(self.event)

    def as_json(self) -> dict[str, Any]:
        """Return its object in `replay --json`."""
        event = self.event
        return {
            "recommendation_id": event.recommendation_id,
            "user_id": event.user_id,
            "served_at": event.received_at,
            "model": event.model,
            "degraded": event.degraded,
            "request": event.request,
            "state_watermark": event.state_watermark,
            "events_applied": event.events_applied,
            "catalogue_watermark": event.catalogue_watermark,
            "served": _as_json(as_recorded(event)),
            "rebuilt": None if self.rebuilt.problem else _as_json(self.rebuilt.items),
            "matches": self.matches,
            "problem": self.rebuilt.problem or None,
            "today": None
            if self.today is None
            else {
                "model": self.active,
                "items": None if self.today.problem else _as_json(self.today.items),
                "problem": self.today.problem or None,
            },
        }

    def as_text(self) -> str:
        """Return it for a terminal: three lists side by side."""
        event = self.event
        lines = [
            f"List {event.recommendation_id} for user {event.user_id or '(none)'}, {event.received_at}.",
            f"Model {event.model}, {event.events_applied} live events, request {json.dumps(event.request)}.",
        ]
        served, again = as_recorded(event), self.rebuilt.items
        today = [] if self.today is None else self.today.items
        rows = [
            [str(place), *self._cells(served, place), *self._cells(again, place)[:2], *self._cells(today, place)[:1]]
            for place in range(max(len(served), len(again), len(today)))
        ]
        headings = ["place", "served", "score", "title", "made again", "score", "today"]
        lines.append(table(headings, rows, left=(1, 3, 4, 6)))
        if self.rebuilt.problem:
            lines.append(f"It cannot be made again: {self.rebuilt.problem}")
        else:
            lines.append("The list made again is the same." if self.matches else "The list made again DIFFERS.")
        if self.today is not None:
            lines.append(f"Today's list is by {self.active}. {self.today.problem}".rstrip())
        return "\n".join(lines)

    def _cells(self, items: Sequence[ListedItem], place: int) -> list[str]:
        if place >= len(items):
            return [_MISSING, _MISSING, _MISSING]
        item = items[place]
        return [item.item_id, f"{item.score:.6g}", self.titles.get(item.item_id, "")]


def replay(
    config: Config, recommendation_id: str | None, sample: int | None, seed: int, stages: StageProgress
) -> list[Replay]:
    """Make one list again, or a sample of all.

    Raises:
        RunError: The archive has no such list.
        ArchiveError: The archive cannot be read.
    """
    root = config.archive_dir
    if sample is not None:
        events = sampled_lists(root, sample, np.random.default_rng(seed), _reporting(stages, "finding lists"))
    else:
        name = recommendation_id or ""
        event = served_list(root, name, _reporting(stages, "finding the list"))
        if event is None:
            raise RunError(f"The archive {root} has no list {name!r}: it may not be archived yet, or be erased.")
        events = [event]
    users = {event.user_id for event in events if event.user_id is not None}
    # The list of today rests on what users did with new items, too.
    with_actions = sample is None or any(rests_on_raters(event.catalogue_watermark) for event in events)
    rebuilder = Rebuilder(
        lambda version: _load(config.models_dir, version),
        evidence_of(
            root,
            users,
            _reporting(stages, "reading events"),
            types=live_types(impressions=config.live.impressions),
            with_actions=with_actions,
        ),
        config.pseudonymiser(),
        events_per_user=config.live.events_per_user,
        seen_types=config.live_lists.seen,
    )
    active = None if sample is not None else active_model.version(config.models_dir, "ranking")
    return [
        Replay(
            event,
            rebuilder.as_served(event),
            active,
            None if active is None else rebuilder.as_of_now(event, active),
            {} if sample is not None else _titles(config.models_dir, active or event.model),
        )
        for event in events
    ]


def print_summary(replays: Sequence[Replay], *, as_json: bool) -> None:
    """Print how many lists of a sample are the same, and the others."""
    others = [each for each in replays if not each.matches]
    if as_json:
        summary = {
            "lists": len(replays),
            "matching": len(replays) - len(others),
            "mismatches": [each.as_json() for each in others if not each.rebuilt.problem],
            "impossible": [
                {"recommendation_id": each.event.recommendation_id, "problem": each.rebuilt.problem}
                for each in others
                if each.rebuilt.problem
            ],
        }
        print(json.dumps(summary, ensure_ascii=False))
        return
    for each in others:
        print(f"{each.event.recommendation_id}: {each.rebuilt.problem or 'the list made again differs.'}")
    print(f"{len(replays) - len(others)} of {len(replays)} lists are the same when made again.")


def _load(models_dir: Path, version: str) -> ModelSnapshot:
    """Load a version, or the copy that replaced it when users were erased.

    Raises:
        ModelError: Neither can be loaded.
    """
    directory = versions.directory_of(models_dir, version)
    if directory.is_dir():
        return artefact.load(directory)
    for name in reversed(versions.published(models_dir)):
        try:
            derived = artefact.read_manifest(models_dir / name).get("derived")
        except ModelError:
            continue
        if isinstance(derived, dict) and version in (derived.get("first"), derived.get("from")):
            return artefact.load(models_dir / name)
    return artefact.load(directory)


def _titles(models_dir: Path, version: str) -> dict[str, str]:
    try:
        snapshot = _load(models_dir, version)
    except ModelError:
        return {}
    records = snapshot.item_records
    if records is None:
        return {}
    found = ((item_id, records.record(row).title) for row, item_id in enumerate(snapshot.items.id_of))
    return {item_id: title for item_id, title in found if title is not None}


def _as_json(items: Sequence[ListedItem]) -> list[dict[str, Any]]:
    return [item._asdict() for item in items]


def _reporting(stages: StageProgress, stage: str) -> Any:
    return lambda done, total: stages(stage, done, total)
