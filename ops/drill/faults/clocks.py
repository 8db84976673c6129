"""Settable wall clocks, one for each part: compiles `clock.c` and writes the files that it maps.

Invariant: a clock file always holds one whole C long, written in place, so that a reader never sees half a number.
"""

import shutil
import struct
from pathlib import Path

from loadbalancer.supervision.processes import run_to_end
from service.errors import RunError

_SOURCE = Path(__file__).with_name("clock.c")
_COMPILE_TIMEOUT_S = 60.0


class Clocks:
    """The clocks of one installation.

    Args:
        folder: An existing folder for the library and the files.
        names: Of the parts.

    Attributes:
        environ: Environment that makes a part read its clock.

    Raises:
        RunError: There is no C compiler, or it fails.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise RunError("No C compiler was found.")
        self._folder = folder
        library = folder / "clock.so"
        argv = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-o", str(library), str(_SOURCE)]
        try:
            status, output = run_to_end(argv, _COMPILE_TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            raise RunError(f"{compiler} does not run: {error}.") from None
        if status != 0:
            raise RunError(f"{compiler} cannot compile the clock: {output.strip()[-200:]}.")
        for name in names:
            (folder / name).write_bytes(struct.pack("@l", 0))
        self.environ = {"LD_PRELOAD": str(library), "RECOLLECT_DRILL_CLOCKS": str(folder)}

    def shift(self, name: str, seconds: int) -> None:
        """Set a part's wall clock ahead of the true time, at once; a negative number sets it behind."""
        with (self._folder / name).open("r+b") as file:
            file.write(struct.pack("@l", seconds))
