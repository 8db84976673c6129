"""The configuration of the installation's Redis, tested with a real one."""

import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from loadbalancer import redis_conf
from loadbalancer.binaries import find_redis
from loadbalancer.errors import BadSetting


def test_redis_runs_with_the_rendered_settings(short_path: Path, wait_until: Callable[..., None]) -> None:
    """Append-only, synced every second, never evicting, on a socket alone; in a directory whose name needs quotes."""
    directory = short_path / 'a "strange" \\ name'
    directory.mkdir()
    socket = directory / "redis.sock"
    config = short_path / "redis.conf"
    config.write_text(redis_conf.render(directory, socket))
    process = subprocess.Popen([str(find_redis(None).path), str(config)], stdout=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    with redis.Redis.from_url(redis_conf.url(socket), decode_responses=True) as client:
        wait_until(answers)
        wanted = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "port": "0",
            "unixsocketperm": "600",
            "dir": str(directory),
        }
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    process.terminate()
    assert process.wait(10) == 0


def test_a_path_with_a_line_break_is_refused() -> None:
    """It would begin another directive."""
    with pytest.raises(BadSetting):
        redis_conf.render(Path("/srv/a\nport 1"), Path("/srv/redis.sock"))
    with pytest.raises(BadSetting):
        redis_conf.render(Path("/srv"), Path("/srv/a\nport 1"))
