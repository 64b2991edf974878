"""A line in the log for each request (`gateway.access_log`)."""

from __future__ import annotations

import logging

from gateway.record import Record

log = logging.getLogger("gateway")


class AccessLog:
    """An `Observer`."""

    def began(self, record: Record) -> None:
        """Nothing is known yet."""

    def ended(self, record: Record) -> None:
        """Writes all of it in one line, but nothing of what was asked or answered."""
        target, total = record.target, record.total()
        log.info(
            "request",
            extra={
                **record.exchange.place(),
                "kind": record.kind,
                "model": record.model[:256],
                "stream": record.stream,
                "outcome": record.outcome.value,
                "status": record.status,
                "reason": None if record.error is None else record.error.label,
                "worker": None if target is None else target.target.worker,
                "upstream": None if target is None else target.target.upstream,
                "target_model": None if target is None else target.target.model,
                "attempts": sum(attempt.tries for attempt in record.attempts),
                "finish": record.finish or None,
                "input_tokens": None if total is None else total.input_tokens,
                "output_tokens": None if total is None else total.output_tokens,
                "seconds": round(record.ended - record.began, 4),
                "first_token_seconds": round(record.first - record.began, 4) if record.first else None,
                **record.exchange.log_fields(),
            },
        )
