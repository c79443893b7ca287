"""One structured line per event on stderr; the supervisor or the platform collects it."""

import logging
from typing import Any

import structlog

from controlplane.core.sandbox.hearing import escaped

_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
_HINTS = ("celery.worker.strategy", "celery.app.trace")
"""Celery's two lines a message. A message is a hint, of which several may come; what was done is in the rows."""


def _escape(_: Any, __: str, line: Any) -> str:
    """Paths, names and exceptions carry what strangers wrote. The renderer escapes line feeds and nothing else."""
    return escaped(str(line)).replace("\t", "\\t")


def formatter() -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(
                key_order=["timestamp", "level", "event"], drop_missing=True, bool_as_flag=False
            ),
            _escape,
        ],
    )


def configure(options: dict[str, Any]) -> None:
    """Routes the standard library's loggers through structlog."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(options["level"])
    logging.getLogger("django.server").propagate = True
    for name in _HINTS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
