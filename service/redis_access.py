"""The Redis streams of an installation and the key that seals its watermarks."""

from functools import partial

from service.config import Config
from service.errors import UsageError
from telemetry.errors import KeyFileError, StreamError
from telemetry.secret_file import read_key
from telemetry.stream.redis_feed_stream import RedisFeedStream
from telemetry.stream.redis_stream import RedisStream
from telemetry.stream.watermark_seal import Seal, load_or_create_key


def load_seal(config: Config) -> Seal:
    """Read the watermark key; create it if the settings name no file and there is none yet.

    Raises:
        UsageError: The file cannot be used.
    """
    try:
        if config.watermark_key_file is not None:
            read = partial(read_key, config.watermark_key_file, "watermark key")
        else:
            read = partial(load_or_create_key, config.archive_dir)
        return Seal(read(), read)
    except KeyFileError as error:
        raise UsageError(f"RECOLLECT_WATERMARK_KEY_FILE: {error}") from None


def redis_stream(config: Config, seal: Seal) -> RedisStream:
    """Return the stream, not connected yet.

    Raises:
        UsageError: The URL is malformed; the message leaves out its password.
    """
    try:
        return RedisStream(config.stream_url, config.redis_namespace, seal)
    except StreamError as error:
        raise UsageError(f"RECOLLECT_REDIS_URL: {error}") from None


def redis_feed(config: Config) -> RedisFeedStream:
    """Return the feed of live state, not connected yet.

    Raises:
        UsageError: The URL is malformed; the message leaves out its password.
    """
    try:
        return RedisFeedStream(config.stream_url, config.redis_namespace)
    except StreamError as error:
        raise UsageError(f"RECOLLECT_REDIS_URL: {error}") from None
