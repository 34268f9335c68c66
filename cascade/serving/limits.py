"""All limits of a server in one value: those of text-embeddings-inference by its names, and our own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cascade.core.checks import check_share, check_whole, is_real
from cascade.exceptions import OptionError

LEFT_OUT = "leave it out for the default"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a server takes. The first six are those of text-embeddings-inference 1.9, with its defaults.

    Attributes:
        max_concurrent_requests: items that may be under way at once; a request with more than is left is refused.
        max_batch_tokens: tokens, special ones included, that go through a tier together at most.
        max_batch_requests: items that do; `None`: any number.
        max_client_batch_size: items of one request.
        auto_truncate: of a text that is too long the first tokens are read where the request does not say; otherwise
            such a request is refused.
        payload_limit: bytes of a request's body.
        max_wait: milliseconds that deferred units wait for others at most, while the first tier is busy.
        max_queue_tokens: tokens that may wait; a request that comes on top is refused.
        max_queue_ms: milliseconds that what waits may take, as measured; a request that comes on top is refused.
        degrade_at: share of either queue limit, in (0, 1], from which answers get cheaper step by step; 1: never.

    An impossible value is an `OptionError`.
    """

    max_concurrent_requests: int = 512
    max_batch_tokens: int = 16384
    max_batch_requests: int | None = None
    max_client_batch_size: int = 32
    auto_truncate: bool = True
    payload_limit: int = 2_000_000
    max_wait: float = 5.0
    max_queue_tokens: int = 65536
    max_queue_ms: float = 100.0
    degrade_at: float = 0.5

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
