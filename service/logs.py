"""The application log: JSON lines through a bounded queue to one writer thread.

Invariant: a log call never blocks. It queues a record; if the queue is full, because the disk is slow, full or missing,
the line is dropped and counted. Telemetry has no logger: this module owns the `recollect` logger tree and the files
under RECOLLECT_LOGS, and nothing under RECOLLECT_HOME.
"""

import atexit
import contextlib
import json
import logging
import logging.handlers
import queue
import sys
import threading
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

from service.config import LogConfig

_FIELD_LIMIT: Final = 1024
_STOP_TIMEOUT_S: Final = 2.0


class ApplicationLog:
    """The application log of one process, in `<name>.log` or on standard error; `start` it once, `stop` it last."""

    def __init__(self, directory: Path, name: str, config: LogConfig) -> None:
        self._file: _CountingFileHandler | _CountingStreamHandler
        if config.output == "stderr":
            self._file = _CountingStreamHandler(sys.stderr)
        else:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = _CountingFileHandler(
                directory / f"{name}.log",
                maxBytes=config.file_bytes,
                backupCount=config.file_count,
                encoding="utf-8",
                delay=True,
            )
        self._file.setFormatter(_formatter(name))
        self._waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(config.queue_lines)
        self._queue_handler = _DroppingQueueHandler(self._waiting)
        # A daemon, because a writer blocked by a dead disk must not keep the process from ending.
        self._writer = threading.Thread(target=self._write, name="log-writer", daemon=True)
        self._level = config.level.upper()

    @property
    def dropped_lines(self) -> int:
        """Lines not written, because the queue was full or the disk refused them."""
        return self._queue_handler.dropped + self._file.failed

    def start(self) -> None:
        """Route structlog and the standard loggers to this log, and start the writer thread."""
        root = logging.getLogger()
        root.handlers[:] = [self._queue_handler]
        root.setLevel(logging.WARNING)
        logging.getLogger("recollect").setLevel(self._level)
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                *_shared_processors(),
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=False,
        )
        self._writer.start()

    def stop(self) -> None:
        """Write the queued lines, as long as the disk accepts them, and close the file."""
        logging.getLogger().removeHandler(self._queue_handler)
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=_STOP_TIMEOUT_S)
            self._writer.join(_STOP_TIMEOUT_S)
        if self._writer.is_alive():
            # The blocked writer holds the file's lock, for which logging.shutdown would wait forever.
            atexit.unregister(logging.shutdown)
        structlog.reset_defaults()

    def _write(self) -> None:
        while (record := self._waiting.get()) is not None:
            self._file.handle(record)
        # In this thread, because `stop` may have ended its wait for a blocked disk.
        try:
            self._file.close()
        except OSError:
            self._file.failed += 1


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        # The base class formats in the caller; here the writer thread does.
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class _Counting(logging.Handler):
    failed = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the standard library's name)
        # The log itself failed, so only the counter can report it.
        self.failed += 1


class _CountingFileHandler(_Counting, logging.handlers.RotatingFileHandler):
    """Writes lines to a file and rotates it."""


class _CountingStreamHandler(_Counting, logging.StreamHandler[TextIO]):
    """Writes lines to a stream, which it leaves open."""


def _shared_processors() -> list[Any]:
    return [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]


def _formatter(name: str) -> logging.Formatter:
    def label(_logger: Any, _method: str, event: Any) -> Any:
        event["process"] = name
        return event

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared_processors(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            label,
            _cap_fields,
            # ASCII only: no text of a caller can break a line, nor lone surrogates the encoding.
            structlog.processors.JSONRenderer(serializer=json.dumps, ensure_ascii=True, default=repr),
        ],
    )


def _cap_fields(_logger: Any, _method: str, event: Any) -> Any:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > _FIELD_LIMIT and key != "exception":
            event[key] = value[:_FIELD_LIMIT] + "…"
    return event
