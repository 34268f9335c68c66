"""MPNet's relative positions: a learned number per head and distance, added to the scores of every layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cascade.engine.packing import MASKED


class BucketBias(nn.Module):
    """`bias` with the numbers of the `buckets` added, made once for all layers of a stage: they share one table.

    What masks padding grows by the table's largest spread within a head. A padding place repeats the key of its row's
    first token, but has the number of its own distance: without this its score could exceed the row's largest.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        table: Tensor = backbone.encoder.relative_attention_bias.weight.detach().T.contiguous()
        self.register_buffer("table", table)
        self.growth = 1 - float((table.amax(1) - table.amin(1)).max()) / float(MASKED)

    def forward(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """`bias` of shape `(rows, heads, longest asking, longest)`, of `(rows, 1, 1, longest)`.

        `buckets`: shape `(1 or rows, longest asking, longest)`.
        """
        table: Any = self.table
        return {"bias": given["bias"] * self.growth + table[:, given["buckets"]].transpose(0, 1)}
