"""One screen of all workers on standard error: a live table below the progress of the stage; plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from ops.console.progress import StageProgress
from ops.console.terminal import console
from ops.console.worker_table import WorkerTable

# rich is loaded only where there is a screen to draw.
if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from service.executors.executor import Watch, WorkerEvent

_LINE_EVERY_S: Final = 5.0
_REDRAWS_PER_S: Final = 4
# What stands above and below the rows, and a line for the prompt.
_OTHER_LINES: Final = 6


class WorkerScreen:
    """Progress as in `StageProgress`, with what every worker does below it, and a context that removes both.

    Args:
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Events may come from the thread of a group of workers.
        self._lock = threading.Lock()
        self._table = WorkerTable()
        self._plain = StageProgress()
        self._stage, self._done, self._total = "", 0, 0
        self._began_s = self._printed_s = clock()
        self._console: Console | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Start the screen, if standard error is a terminal."""
        if sys.stderr.isatty():
            from rich.live import Live as RichLive

            self._console = console(stderr=True)
            self._live = RichLive(
                get_renderable=self._drawn,
                console=self._console,
                refresh_per_second=_REDRAWS_PER_S,
                transient=True,
                # Lines of the command go above the screen by `print`.
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` of a stage is done; a new name begins a new stage."""
        with self._lock:
            if stage != self._stage:
                self._began_s = self._clock()
            self._stage, self._done, self._total = stage, done, total
        if self._live is None:
            self._plain(stage, done, total)

    def watch(self, event: "WorkerEvent") -> None:
        """Show what has become of a worker."""
        with self._lock:
            loss = self._table.update(event)
            now_s = self._clock()
            is_due = self._live is None and len(self._table) and now_s - self._printed_s >= _LINE_EVERY_S
            if is_due:
                self._printed_s = now_s
            summary = self._table.summary() if is_due else None
        for line in (loss, summary):
            if line is not None:
                self.print(line)

    def print(self, line: str) -> None:
        """Print a line on standard error, above the screen."""
        if self._live is not None and self._console is not None:
            self._console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def _drawn(self) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        with self._lock:
            height = 24 if self._console is None else self._console.height
            heading, rows = self._table.rows(max(1, height - _OTHER_LINES))
            stage, done, total = self._stage, self._done, self._total
            summary = self._table.summary() if len(self._table) else ""
            took_s = self._clock() - self._began_s
        parts: list[RenderableType] = []
        if stage:
            bar = Table.grid(padding=(0, 1))
            share = f"{100 * done // total if total else 100} %"
            bar.add_row(
                Text(stage), ProgressBar(total=max(1, total), completed=done, width=40), share, _minutes(took_s)
            )
            parts.append(bar)
        if summary:
            parts.append(Text(summary, style="dim"))
        if rows:
            table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
            for name in heading:
                table.add_column(name, justify="right" if name in {"process", "done", "deaths"} else "left")
            for row in rows[: max(1, height - _OTHER_LINES)]:
                table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
            parts.append(table)
        return Group(*parts)


def progress_screen(*, has_workers: bool) -> StageProgress | WorkerScreen:
    """Return what shows the progress of a command: with its workers, if it has some."""
    return WorkerScreen() if has_workers else StageProgress()


def watch_of(progress: StageProgress | WorkerScreen) -> "Watch":
    """Return what to call with the events of workers."""
    return progress.watch if isinstance(progress, WorkerScreen) else _ignore


def _ignore(_event: "WorkerEvent") -> None:
    """Ignore an event: there are no workers."""


_STYLES: Final = {"working": "green", "died": "bold red", "idle": "dim"}


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
