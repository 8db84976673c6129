"""A peer's process: started with a fold, it fits and runs one model per request.

Invariant: it runs on the cores of this process, with as many threads; its own environment precedes our packages on its
path.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from ops.benchmarks.peers.peer_program import Fold
from ops.console.foreground import parent_death_hook
from service.errors import RunError

_ROOT: Final = str(Path(__file__).resolve().parents[3])
_CODE: Final = """import sys
sys.path.append({root!r})
from ops.benchmarks.peers.peer_program import main
main({library!r}, {fold!r})
"""
_POOLS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LK_NUM_THREADS")


@dataclass(frozen=True)
class Seconds:
    """The times of fitting and answering on one fold; processor times are those of all threads."""

    fit_s: float
    fit_cpu_s: float
    answer_s: float
    answer_cpu_s: float

    @property
    def total_s(self) -> float:
        """Fitting and answering."""
        return self.fit_s + self.answer_s

    @property
    def total_cpu_s(self) -> float:
        """Processor time of fitting and answering."""
        return self.fit_cpu_s + self.answer_cpu_s


@dataclass(eq=False)
class Peer:
    """One library with one fold; `prepare_s` are the seconds of converting the fold to its data structures."""

    library: str
    version: str
    import_s: float
    prepare_s: float
    _process: subprocess.Popen[str]
    _errors: IO[str]
    _result: Path

    def answer(self, model: str, task: str, *, seed: int, settings: Mapping[str, Any]) -> tuple[NDArray[Any], Seconds]:
        """Fit a model of the library and let it answer "predict" or "rank", see `peer_program.Model`.

        Raises:
            RunError: It failed; the message has its last line of output.
        """
        request = {"model": model, "ask": task, "seed": seed, "settings": dict(settings), "path": str(self._result)}
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise _failed(self.library, self._errors) from None
        seconds = Seconds(**_read_answer(self.library, self._process, self._errors))
        return np.load(self._result, allow_pickle=False), seconds


@contextmanager
def started(python: Path, library: str, fold: Fold) -> Iterator[Peer]:
    """Run a library's process with a fold during the context, by the interpreter of the peers' environment.

    Raises:
        RunError: There is no such interpreter, or the library cannot be used there.
    """
    environment = {**os.environ, **dict.fromkeys(_POOLS, str(fold.threads))}
    # It would precede the peers' environment.
    environment.pop("PYTHONPATH", None)
    with (
        tempfile.TemporaryDirectory(prefix="recollect-peer-") as scratch,
        (Path(scratch) / "stderr").open("w+", encoding="utf-8", errors="replace") as errors,
    ):
        fold_path = str(Path(scratch) / "fold.npz")
        fold.save(fold_path)
        code = _CODE.format(root=_ROOT, library=library, fold=fold_path)
        try:
            process = subprocess.Popen(
                [str(python.absolute()), "-P", "-c", code],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=scratch,
                preexec_fn=parent_death_hook(os.getpid()),  # noqa: PLW1509  # it takes no lock
            )
        except OSError as error:
            raise RunError(
                f"The peers' interpreter {python} cannot be started ({error.strerror}); `make peers` makes one."
            ) from error
        try:
            ready = _read_answer(library, process, errors)
            yield Peer(library, **ready, _process=process, _errors=errors, _result=Path(scratch) / "result.npy")
        finally:
            process.kill()
            process.communicate()


def _read_answer(library: str, process: subprocess.Popen[str], errors: IO[str]) -> dict[str, Any]:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        process.wait()
        raise _failed(library, errors)
    answer: dict[str, Any] = json.loads(line)
    return answer


def _failed(library: str, errors: IO[str]) -> RunError:
    errors.seek(0)
    lines = errors.read().strip().splitlines()
    return RunError(f"{library} failed: {lines[-1] if lines else 'it printed nothing'}.")
