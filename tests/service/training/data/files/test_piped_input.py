"""Standard input and named pipes."""

import gzip
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.errors import DataError, UsageError
from service.training.data import data_request, datasets
from service.training.data.files import piped_input
from tests.support.archives.small_tables import HEADER, ROWS


def test_standard_input() -> None:
    """It is read as any file, once, and its copy is deleted."""
    code = (
        "from service.training.data import datasets\nfrom service.training.data.files import piped_input\n"
        "data = datasets.read('-')\n"
        "again = datasets.read('-')\n"
        "print(len(data), len(again), data.report.source, piped_input.copy_of_standard_input())"
    )
    packed = gzip.compress((HEADER + ROWS).encode())
    done = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True, timeout=60)
    n, again, source, path = done.stdout.decode().split()
    assert (n, again, source) == ("2", "2", "-")
    assert not Path(path).exists()


def test_standard_input_is_named_once() -> None:
    """It cannot be read twice."""
    with pytest.raises(UsageError, match="give --data - only once"):
        data_request.parse(["-", "-"])


class TestNamedPipes:
    """Pipes such as a shell makes of `<(zcat ratings.csv.gz)`; like standard input they are read once."""

    def test_a_pipe_is_read_as_a_file(self, tmp_path: Path) -> None:
        """Compressed, and larger than a pipe's buffer; it can be read again."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        rows = "".join(f"u{n},i{n % 9},{n % 5 + 1},1600000000\n" for n in range(20_000))
        packed = gzip.compress((HEADER + rows).encode(), compresslevel=0)
        writer = threading.Thread(target=pipe.write_bytes, args=(packed,))
        writer.start()
        data = datasets.read(str(pipe))
        writer.join()
        assert len(data) == 20_000
        assert data_request.parse([str(pipe)]).label == "pipe pipe"
        assert data.fingerprint == f"sha256:{hashlib.sha256(packed).hexdigest()}" == datasets.fingerprint(str(pipe))

    def test_a_slow_writer_is_waited_for(self, tmp_path: Path) -> None:
        """It has the pipe open."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        with pipe.open("wb") as end:
            os.close(reader)

            def write_late() -> None:
                end.write((HEADER + ROWS).encode())
                end.close()

            late = threading.Thread(target=write_late)
            threading.Timer(0.1, late.start).start()
            assert piped_input.copy_of_pipe(pipe, no_writer_s=0.0).read_text() == HEADER + ROWS
            late.join()

    def test_a_pipe_without_a_writer_is_refused(self, tmp_path: Path) -> None:
        """The wait is limited."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with pytest.raises(DataError, match=r"no process wrote to it within 0\.01 seconds"):
            piped_input.copy_of_pipe(pipe, no_writer_s=0.01)

    def test_a_pipe_can_be_read_once(self, tmp_path: Path) -> None:
        """`is_read_once` is true."""
        os.mkfifo(tmp_path / "pipe")
        assert data_request.parse([str(tmp_path / "pipe")]).is_read_once
        assert not data_request.parse([str(tmp_path)]).is_read_once
