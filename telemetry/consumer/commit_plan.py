"""Plans the commit of new events: removes duplicates of clients and late events of erased users (pure)."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import orjson

from telemetry.archive.archive_files import DEAD_LETTERS, date_folder
from telemetry.catalogue.commit import CommitContent, SeenEvent, SeenKey, add_run
from telemetry.consumer.delivery_sorter import SortedDeliveries
from telemetry.erasure.erasure import LateEventFilter, requests_erasure
from telemetry.events import Feedback, ItemChange, Record
from telemetry.fingerprint import UNKNOWN, Fingerprints, same_user


@dataclass(slots=True)
class CommitPlan:
    """A commit, the events in it, and the number of events whose id also stands for another event."""

    content: CommitContent
    records: list[Record] = field(default_factory=list)
    conflicts: int = 0


def plan_commit(
    deliveries: SortedDeliveries,
    seen: Mapping[SeenKey, AbstractSet[bytes]],
    late_events: LateEventFilter,
    fingerprints: Fingerprints,
) -> CommitPlan:
    """Plan the commit of a read; feedback whose user used its id for another event is archived with a mark.

    Args:
        deliveries: Its progress is completed here.
        seen: The fingerprints of archived events under the ids in the read.
    """
    content = CommitContent(progress=deliveries.progress, removed=deliveries.removed)
    result = CommitPlan(content)
    known_ids = {key: set(known) for key, known in seen.items()}
    for record, line in deliveries.fresh:
        event, producer, epoch, seq = record
        progress = deliveries.progress[producer, epoch]
        if late_events and late_events.is_late(record):
            progress.erased += 1
            add_run(content.removed, producer, epoch, range(seq, seq + 1), "erased", event.received_at)
            continue
        if isinstance(event, Feedback | ItemChange):
            known = known_ids.setdefault((event.tenant, event.event_id), set())
            fingerprint = fingerprints.of_event(event)
            if fingerprint in known or UNKNOWN in known:
                progress.deduplicated += 1
                add_run(content.removed, producer, epoch, range(seq, seq + 1), "deduplicated", event.received_at)
                continue
            if isinstance(event, Feedback) and any(same_user(fingerprint, other) for other in known):
                result.conflicts += 1
                record, line = _marked(record, event, line)  # noqa: PLW2901 - archived with the mark
            known.add(fingerprint)
            content.seen.append(SeenEvent(event.tenant, event.event_id, fingerprint))
        elif requests_erasure(record):
            record, line, request = late_events.redact(record, line)  # noqa: PLW2901 - archived without the user id
            content.erasures.append(request)
        progress.archived += 1
        result.records.append(record)
        content.folders.setdefault(date_folder(event.received_at), []).append(line)
    if deliveries.dead_letters:
        content.folders[DEAD_LETTERS] = deliveries.dead_letters
    return result


def _marked(record: Record, event: Feedback, line: bytes) -> tuple[Record, bytes]:
    """Mark an event whose id stands for another one, too; fields unknown to this version stay."""
    fields = orjson.loads(line)
    fields["marks"] = marks = [*event.marks, "id_conflict"]
    return record._replace(event=replace(event, marks=marks)), orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
