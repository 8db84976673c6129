"""The consumer erases users from generated lists by a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import RunError
from service.generation.erasure.list_erasure import GeneratedListEraser
from service.generation.files.output_folder import MANIFEST
from service.models.files.erased_users import ErasedUsers
from telemetry.ids import rfc3339_ms
from telemetry.pseudonym import Pseudonymiser
from tests.support.models.generated_folders import AS_OF, ERASED, contents, copy_of

ROOT = Path(__file__).parents[4]


async def test_the_consumer_erases_by_a_process_of_its_own(made: Callable[..., Path], tmp_path: Path) -> None:
    """Below the place of the installation, by pseudonyms; a killed process is an error, and the next one completes."""
    pseudonyms = Pseudonymiser(b"k" * 32)
    names = [pseudonyms.pseudonym(user) for user in ERASED]
    models_dir, generated = tmp_path / "models", tmp_path / "generated"
    requested_s = 1_700_000_000
    requested = dict.fromkeys(names, rfc3339_ms(requested_s + 0.5))
    await GeneratedListEraser(generated, models_dir).erase(requested)
    assert not models_dir.exists()
    models_dir.mkdir()
    ErasedUsers(b"s" * 32, {}).with_erased(names[:2], requested_s - 1).with_permanent(names[:1]).write(models_dir)
    folder = copy_of(made("rows"), generated / "nightly" / "monday")
    killed = GeneratedListEraser(generated, models_dir, b"k" * 32, "generated.renamed:kill:2")
    with pytest.raises(RunError, match="was killed"):
        await killed.erase(requested)
    # All are listed first, so that a folder which becomes complete meanwhile leaves them out.
    listed_users = ErasedUsers.read(models_dir)
    assert not listed_users.unlisted(dict.fromkeys(names, requested_s * 1000 + 500))
    assert len(listed_users.permanent_s) == 1
    assert await GeneratedListEraser(generated, models_dir, b"k" * 32).erase(requested) == {}
    # A user who is listed after the request keeps the time of the list: the user may have come back.
    assert ErasedUsers.read(models_dir) == listed_users
    assert contents(folder) == contents(made("rows", *ERASED))
    # Lists that were made later are theirs.
    later = copy_of(made("rows"), generated / "later")
    manifest = json.loads((later / MANIFEST).read_bytes()) | {"as_of": rfc3339_ms(time.time() + 3600)}
    (later / MANIFEST).write_text(json.dumps(manifest))
    await GeneratedListEraser(generated, models_dir, b"k" * 32).erase(requested)
    assert contents(later) == contents(made("rows"))
    (folder / "shard-00003.parquet").write_bytes(b"")
    with pytest.raises(RunError, match=r"shard-00003\.parquet cannot be read"):
        await GeneratedListEraser(generated, models_dir).erase({"u1": AS_OF})


async def test_a_process_that_cannot_begin_says_why(
    made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the type of the exception alone: its text may have an id."""
    copy_of(made("rows"), tmp_path / "generated")
    (tmp_path / "pyarrow.py").write_text("import sys\nsys.stderr.write('x' * 10_000)\nraise MemoryError('u1')\n")
    (tmp_path / "threading.py").write_text("raise ImportError('u1')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RunError, match=r"ended with exit code 1\. Its last error is ImportError\.$"):
        await GeneratedListEraser(tmp_path / "generated", tmp_path / "models").erase({"u1": AS_OF})


def test_the_process_ends_with_its_consumer(made: Callable[..., Path], tmp_path: Path) -> None:
    """Whatever it waits for, such as a disk that does not answer; here a pipe without a writer."""
    folder = copy_of(made("rows"), tmp_path / "generated")
    (folder / "shard-00000.parquet").unlink()
    os.mkfifo(folder / "shard-00000.parquet")
    order = {"root": str(folder), "users": ["u1"], "pseudonym_key": None, "failpoint": None}
    # Its standard input ends behind the order, as it does when the consumer is killed.
    done = subprocess.run(
        [sys.executable, "-m", "service.generation.erasure.erasing_process"],
        input=json.dumps(order).encode() + b"\n",
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, b"")
