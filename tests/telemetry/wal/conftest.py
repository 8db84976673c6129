from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.spools.spool_log import Log


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = Log(tmp_path)
    log.open()
    yield log
    log.disk.gate.set()
    log.disk.refused.clear()
    log.spool.close(clean=True)
