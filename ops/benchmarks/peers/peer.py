"""A peer's process, seen from our side: started with a fold, asked for one model after another.

The invariant: it runs on the cores of this process, with as many threads as we have, and nothing of our packages is in
its way: its own environment comes first on its path.
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
from ops.console.foreground import dies_with
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
    """What one model took on one fold.

    Attributes:
        fit_s: fitting.
        fit_cpu_s: Processor time of it, all threads.
        answer_s: Predicting all ratings, or ranking all lists.
        answer_cpu_s: Processor time of it.
    """

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
        """Processor time of both."""
        return self.fit_cpu_s + self.answer_cpu_s


@dataclass(eq=False)
class Peer:
    """One library, holding one fold.

    Attributes:
        library: Its name.
        version: Of the library.
        import_s: What importing it took.
        prepare_s: What turning the fold into its kind of data took.
    """

    library: str
    version: str
    import_s: float
    prepare_s: float
    _process: subprocess.Popen[str]
    _errors: IO[str]
    _result: Path

    def ask(self, model: str, what: str, *, seed: int, settings: Mapping[str, Any]) -> tuple[NDArray[Any], Seconds]:
        """Have a model fitted and asked.

        Args:
            model: Its name in the library.
            what: "predict" or "rank", see `peer_program.Model`.
            seed: Decides what it draws.
            settings: Those that are not to be the library's defaults.

        Returns:
            What it answered, and what that took.

        Raises:
            RunError: It failed; tells the last line it said.
        """
        request = {"model": model, "ask": what, "seed": seed, "settings": dict(settings), "path": str(self._result)}
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise _failed(self.library, self._errors) from None
        seconds = Seconds(**_answer(self.library, self._process, self._errors))
        return np.load(self._result, allow_pickle=False), seconds


@contextmanager
def started(python: Path, library: str, fold: Fold) -> Iterator[Peer]:
    """Start a peer's process and give it a fold; end it afterwards.

    Args:
        python: The interpreter of the peers' environment.
        library: "surprise", "implicit" or "lenskit".
        fold: What it is given.

    Raises:
        RunError: There is no such interpreter, or the library cannot be used there.
    """
    environment = {**os.environ, **dict.fromkeys(_POOLS, str(fold.threads))}
    # Ours would come before its own.
    environment.pop("PYTHONPATH", None)
    with (
        tempfile.TemporaryDirectory(prefix="recollect-peer-") as scratch,
        (Path(scratch) / "stderr").open("w+", encoding="utf-8", errors="replace") as said,
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
                stderr=said,
                text=True,
                cwd=scratch,
                preexec_fn=dies_with(os.getpid()),  # noqa: PLW1509  # it takes no lock of another thread
            )
        except OSError as error:
            raise RunError(
                f"The peers' interpreter {python} cannot be started ({error.strerror}); `make peers` makes one."
            ) from error
        try:
            ready = _answer(library, process, said)
            yield Peer(library, **ready, _process=process, _errors=said, _result=Path(scratch) / "result.npy")
        finally:
            process.kill()
            process.communicate()


def _answer(library: str, process: subprocess.Popen[str], errors: IO[str]) -> dict[str, Any]:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        process.wait()
        raise _failed(library, errors)
    answer: dict[str, Any] = json.loads(line)
    return answer


def _failed(library: str, errors: IO[str]) -> RunError:
    errors.seek(0)
    said = errors.read().strip().splitlines()
    return RunError(f"{library} failed: {said[-1] if said else 'it said nothing'}")
