"""What a command knows of a training group while it runs: what it keeps for it, and whether it is started again."""

from dataclasses import dataclass, field

from service.errors import GroupBroken, RecollectError, RunError
from service.executors.executor import MOST_DEATHS, Keep, kept_nowhere
from service.executors.member import Kept, Progressed
from service.executors.task_call import TaskFailed
from service.training.interactions import Progress, no_progress


@dataclass
class GroupRun:
    """The starts of a group, until it ends.

    Attributes:
        stage: The stage of the work.
        kept: What the first member has kept last; None if nothing.
        keep: Called with it whenever there is something new.
        keep_interval_s: How often the first member keeps something; 0 for at any time, None for never.
        progress: Called with the progress of the first member.
        attempt: How often the group was started before.
    """

    stage: str = ""
    kept: bytes | None = None
    keep: Keep = kept_nowhere
    keep_interval_s: float | None = None
    progress: Progress = no_progress
    attempt: int = 0
    _n_losses: int = field(default=0, init=False)  # since something was kept

    def take(self, message: Kept | Progressed) -> None:
        """Take a message of the first member."""
        if isinstance(message, Kept):
            self.kept = message.content
            self._n_losses = 0
            self.keep(message.content)
        else:
            self.progress(message.stage, message.done, message.total)

    def lost(self, reason: str) -> None:
        """Count the loss of a member, after which the group is started again.

        Args:
            reason: A sentence on why the member ended.

        Raises:
            RunError: So many were lost without anything new to keep that another start would end in the same way.
        """
        self.attempt += 1
        self._n_losses += 1
        if self._n_losses >= MOST_DEATHS:
            raise RunError(
                f"The group of the stage {self.stage!r} lost a member {MOST_DEATHS} times without getting on. {reason}"
            )

    def error_of(self, failed: TaskFailed) -> RecollectError | None:
        """Return the error of a member that ends the group; None if the member has only lost another one."""
        return None if failed.kind is GroupBroken else failed.error()
