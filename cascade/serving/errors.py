"""What a request can end with, beside an answer: TEI's table of errors, in the forms that clients read.

    Refused (CascadeError)     any status; plain text unless it has a kind, as TEI's framework answers
    ├── Invalid     422 Validation    a request of the right shape that breaks a limit
    │   └── TooLong                   too many tokens, and they may not be cut
    ├── Failed      424 Backend       the model cannot answer, or not this question
    └── Overloaded  429 Overloaded    more work than there is room for, with Retry-After

Source: TEI 1.9.3, router/src/http/types.rs; the plain texts are axum's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from cascade.exceptions import CascadeError


class Refused(CascadeError):  # noqa: N818  # as its kinds, which are TEI's words
    """A request that is refused. `status`: HTTP's; `kind`: TEI's name for it, empty where the body is plain text."""

    status, kind = 422, ""
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self, message: str, status: int | None = None, kind: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind = status or self.status, self.kind if kind is None else kind


class Invalid(Refused):
    """A request of the right shape that breaks a limit."""

    kind = "Validation"


class TooLong(Invalid):
    """An item has more `unit` ("tokens" with special ones, or "characters") than the `limit`: `tokens` of them."""

    def __init__(self, tokens: int, limit: int, unit: str = "tokens") -> None:
        super().__init__(f"Input validation error: `inputs` must have less than {limit} {unit}. Given: {tokens}")
        self.tokens, self.limit = tokens, limit


class Failed(Refused):
    """The model could not answer; another request may be answered."""

    status, kind = 424, "Backend"


class Overloaded(Refused):
    """Too much waits already. `retry_after`: seconds after which there may be room, in HTTP's header at least one."""

    status, kind = 429, "Overloaded"

    def __init__(self, retry_after: float) -> None:
        super().__init__("Model is overloaded")
        self.headers = ((b"retry-after", b"%d" % max(1, math.ceil(retry_after))),)


def misshapen(where: str, why: str) -> Refused:
    """JSON of another shape than a route reads. `where`: the key; `why`: what is expected there, and what came."""
    return Refused(f"Failed to deserialize the JSON body into the target type: {where}: {why}")


Dialect: TypeAlias = Callable[[Refused], tuple[int, Any]]
"""Status and body of an error as some clients read it; a `str` is plain text."""
OPENAI: Final = {404: "NotFoundError", 424: "InternalServerError", 429: "RateLimitError"}


def as_tei(error: Refused) -> tuple[int, Any]:
    """As text-embeddings-inference writes an error."""
    return error.status, {"error": str(error), "error_type": error.kind} if error.kind else str(error)


def as_vllm(error: Refused) -> tuple[int, Any]:
    """As vLLM does: OpenAI's form, and 400 for what TEI calls 422."""
    status = 400 if error.status == 422 else error.status
    kind = OPENAI.get(status, "BadRequestError")
    return status, {"error": {"message": str(error), "type": kind, "param": None, "code": status}}


def as_kserve(error: Refused) -> tuple[int, Any]:
    """As KServe's protocols do: 400 too."""
    return 400 if error.status == 422 else error.status, {"error": str(error)}
