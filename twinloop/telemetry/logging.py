"""Structured logs: one JSON object a line on standard error, never with what a user wrote."""

from __future__ import annotations

import logging
import sys
from typing import cast

import structlog

FORBIDDEN_KEYS = frozenset({"text", "question", "answer", "prompt", "correction", "passage"})
"""Event fields that hold users' words; a log line that carries one is cut."""


def configure_logging(service: str, instance: str, level: str = "info") -> None:
    """Set up this process's logging once; called by composition roots only."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _without_users_words,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    structlog.contextvars.bind_contextvars(service=service, instance=instance)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(logger_name=name))


def _without_users_words(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    for key in FORBIDDEN_KEYS & event.keys():
        event[key] = "(withheld)"
    return event
