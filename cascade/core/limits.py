"""All limits of a server in one value. The command shows them where the extra that serves is missing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from cascade.core.checks import check_share, check_whole, is_real
from cascade.exceptions import OptionError

LEFT_OUT = "leave it out for the default"


def _limit(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a server takes; what each field means is its `help`. An impossible value is an `OptionError`.

    Items are texts, pairs or sentences; tokens include special ones. A request that comes on top of what may be under
    way or may wait is refused. The first six are those of text-embeddings-inference 1.9, with its defaults.
    """

    max_concurrent_requests: int = _limit(512, "Texts that may be under way at once.")
    max_batch_tokens: int = _limit(16384, "Tokens that run together at most.")
    max_batch_requests: int | None = _limit(None, "Texts that do.  [default: any number]")
    max_client_batch_size: int = _limit(32, "Texts of one request.")
    auto_truncate: bool = _limit(True, "Cut long texts where a request does not say; false: refuse them.")
    payload_limit: int = _limit(2_000_000, "Bytes of a request.")
    max_wait: float = _limit(5.0, "Milliseconds that deferred texts wait for others at most.")
    max_queue_tokens: int = _limit(65536, "Tokens that may wait before requests are refused (429).")
    max_queue_ms: float = _limit(100.0, "Milliseconds that what waits may take before requests are refused.")
    degrade_at: float = _limit(0.5, "Share of either from which answers get cheaper, step by step; 1: never.")

    def __post_init__(self) -> None:
        whole = ("max_concurrent_requests", "max_batch_tokens", "max_client_batch_size", "payload_limit")
        for name in (*whole, "max_queue_tokens"):
            check_whole(name, getattr(self, name), LEFT_OUT)
        if self.max_batch_requests is not None:
            check_whole("max_batch_requests", self.max_batch_requests, "None sets no limit")
        for name, least in (("max_wait", 0), ("max_queue_ms", 1)):
            value = getattr(self, name)
            if not is_real(value) or not least <= value < math.inf:
                raise OptionError(f"{name} must be milliseconds of at least {least}, got {value!r}; {LEFT_OUT}")
        if not check_share("degrade_at", self.degrade_at, "1 never degrades"):
            raise OptionError(f"degrade_at must be above 0, got {self.degrade_at!r}; 1 never degrades")

    def check(self, max_input_length: int) -> None:
        """Whether a text that a model reads whole fits a batch; an `OptionError` otherwise."""
        if not self.auto_truncate and max_input_length > self.max_batch_tokens:
            raise OptionError(
                f"max_batch_tokens must be at least the longest input ({max_input_length}) unless texts are truncated, "
                f"got {self.max_batch_tokens}; raise it or set auto_truncate"
            )
