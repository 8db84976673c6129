"""Progress of long work on standard error: a bar on a terminal, elsewhere a plain line every few seconds."""

import sys
import time
from typing import TYPE_CHECKING, Final, Self

from ops.console.terminal import console

# rich is loaded only where there is a bar to draw.
if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_EVERY_S: Final = 5.0


class ProgressBar:
    """A bar on standard error, and a context that removes it; it draws nothing where that is no terminal.

    Args:
        counts: Show how many are done of how many, rather than a percentage.
        from_a_thread: Redraw it from a thread of its own, else only when it changes.
    """

    def __init__(self, *, counts: bool = False, from_a_thread: bool = True) -> None:
        self._counts = counts
        self._from_a_thread = from_a_thread
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether standard error is a terminal."""
        return self._progress is not None

    def __enter__(self) -> Self:
        """Start the bar, if standard error is a terminal."""
        if sys.stderr.isatty():
            from rich import progress

            self._progress = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.MofNCompleteColumn() if self._counts else progress.TaskProgressColumn(),
                progress.TimeElapsedColumn(),
                console=console(stderr=True),
                auto_refresh=self._from_a_thread,
                transient=True,
            )
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        if self._progress is not None:
            self._progress.stop()

    def show(self, description: str, done: float, total: float | None) -> None:
        """Show that `done` of `total` is done; None for an unknown total."""
        if self._progress is None:
            return
        if self._task is None:
            self._task = self._progress.add_task(description, total=total)
        self._progress.update(
            self._task, description=description, completed=done, total=total, refresh=not self._from_a_thread
        )

    def restart(self) -> None:
        """Let the next `show` begin a new bar, with its time at 0."""
        if self._progress is not None and self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def print(self, line: str) -> None:
        """Print a line on standard error, above the bar."""
        if self._progress is not None:
            self._progress.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)


class StageProgress:
    """A callable that takes `(stage, done, total)`, and a context that removes the bar at its end."""

    def __init__(self) -> None:
        self._bar = ProgressBar()
        self._stage = ""
        self._printed_s = 0.0

    def __enter__(self) -> Self:
        """Start the bar."""
        self._bar.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the bar."""
        self._bar.__exit__(*exception)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` of a stage is done; a new name begins a new stage."""
        is_new, self._stage = stage != self._stage, stage
        if self._bar.is_drawn:
            if is_new:
                self._bar.restart()
            self._bar.show(stage, done, total)
            return
        now_s = time.monotonic()
        if is_new or done >= total or now_s - self._printed_s >= _LINE_EVERY_S:
            self._printed_s = now_s
            self._bar.print(f"{stage}: {100 * done // total if total else 100} %")
