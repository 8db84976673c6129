import stat
from pathlib import Path

import pytest

from ops.cluster.token_file import make_token, require_token
from service.config import Config, from_env
from service.errors import UsageError


def config(home: Path, **environ: str) -> Config:
    return from_env({"RECOLLECT_HOME": str(home), **environ})


def test_a_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = make_token(config(tmp_path))
    assert path == tmp_path / "cluster" / "token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert len(text) == 64
    assert make_token(config(tmp_path)) == require_token(config(tmp_path)) == path
    assert path.read_text() == text
    assert make_token(config(tmp_path / "other")).read_text() != text


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = make_token(config(tmp_path))
    path.chmod(0o644)
    with pytest.raises(UsageError, match=r"has mode 0644\. Only its owner may have access"):
        require_token(config(tmp_path))


def test_a_missing_token_is_asked_for_by_its_path(tmp_path: Path) -> None:
    """Also where a setting names another file."""
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(UsageError, match=rf"^There is no token of a cluster in {elsewhere}: copy it"):
        require_token(config(tmp_path, RECOLLECT_CLUSTER_TOKEN_FILE=str(elsewhere)))
    elsewhere.write_text("-" * 40)
    elsewhere.chmod(0o600)
    with pytest.raises(UsageError, match="is no token of a cluster"):
        require_token(config(tmp_path, RECOLLECT_CLUSTER_TOKEN_FILE=str(elsewhere)))
