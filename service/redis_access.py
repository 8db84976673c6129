"""The way to Redis of every part: its address, its keys' namespace, and the key that watermarks are sealed with."""

from functools import partial

from service.config import Config
from service.errors import UsageError
from telemetry.errors import KeyFileError, StreamError
from telemetry.secret_file import read_key
from telemetry.stream.redis_stream import RedisStream
from telemetry.stream.watermark_seal import Seal, load_or_create_key


def open_seal(config: Config) -> Seal:
    """Read the installation's key for watermarks; make it if no file is named and there is none yet.

    Raises:
        UsageError: The file cannot be used; says why.
    """
    try:
        if config.watermark_key_file is not None:
            origin = partial(read_key, config.watermark_key_file, "watermark key")
        else:
            origin = partial(load_or_create_key, config.archive_dir)
        return Seal(origin(), origin)
    except KeyFileError as error:
        raise UsageError(f"RECOLLECT_WATERMARK_KEY_FILE: {error}") from None


def stream_of(config: Config, seal: Seal) -> RedisStream:
    """Return one end of the road, not connected yet.

    Args:
        config: Where it leads.
        seal: See `open_seal`.

    Raises:
        UsageError: The address is none; says why, without its password.
    """
    try:
        return RedisStream(config.stream_url, config.redis_namespace, seal)
    except StreamError as error:
        raise UsageError(f"RECOLLECT_REDIS_URL: {error}") from None
