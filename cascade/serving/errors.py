"""What a request can end with, beside an answer or an `InputError`."""

from __future__ import annotations

from cascade.exceptions import CascadeError


class Overloaded(CascadeError):  # noqa: N818  # these are TEI's words
    """Too much waits already. `retry_after`: seconds after which there may be room."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("Model is overloaded")
        self.retry_after = retry_after


class TooLong(CascadeError):  # noqa: N818
    """An item has more `unit` ("tokens" with special ones, or "characters") than the `limit`: `tokens` of them."""

    def __init__(self, tokens: int, limit: int, unit: str = "tokens") -> None:
        super().__init__(f"Input validation error: `inputs` must have less than {limit} {unit}. Given: {tokens}")
        self.tokens, self.limit, self.unit = tokens, limit, unit


class Failed(CascadeError):  # noqa: N818
    """The model could not answer; another request may be answered."""
