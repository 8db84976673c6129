"""The context that all classes of one consumer share."""

from dataclasses import dataclass, field

from telemetry.counters import ConsumerCounters
from telemetry.errors import ArchiveError
from telemetry.failpoints import Failpoints
from telemetry.notes import ArchiveFailed, Note, Observer, notify
from telemetry.settings import ConsumerSettings


@dataclass(frozen=True)
class ConsumerContext:
    """Settings, counters, the observer of notes, and the failpoints of a drill."""

    settings: ConsumerSettings
    observer: Observer | None = None
    failpoints: Failpoints = field(default_factory=Failpoints)
    counters: ConsumerCounters = field(default_factory=ConsumerCounters)

    def notify(self, note: Note) -> None:
        """Pass a note to the observer."""
        notify(self.observer, note)

    def archive_failed(self, error: ArchiveError) -> None:
        """Report a failure of the archive, after which the work is repeated."""
        self.counters.last_error = str(error)
        self.notify(ArchiveFailed(str(error)))
