"""An embedding table with rows for some tokens only, whatever the tokenizer: the ids of the others share one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FewerRows(nn.Module):
    """In the place of an `nn.Embedding`.

    Attributes:
        weight: shape `(rows, width)`.
        places: the row of each token id. Shape `(vocabulary,)`.
    """

    places: Tensor

    def __init__(self, vocabulary: int, rows: int, width: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = rows, width
        self.weight = nn.Parameter(torch.zeros(rows, width))
        self.register_buffer("places", torch.zeros(vocabulary, dtype=torch.int64))

    @classmethod
    def of(cls, table: Any, kept: Tensor, *, unknown: int) -> FewerRows:
        """The rows of these tokens, ids rising, and of the one that all others are read as. `table`: of all."""
        kept = torch.cat((kept, torch.tensor([unknown]))).unique()
        made = cls(table.num_embeddings, len(kept), table.embedding_dim)
        with torch.no_grad():
            made.weight.copy_(table.weight[kept])
        made.places.fill_(int((kept == unknown).nonzero()))
        made.places[kept] = torch.arange(len(kept))
        return made

    def forward(self, ids: Tensor) -> Tensor:
        """Shapes `(...)` -> `(..., width)`."""
        return F.embedding(self.places[ids], self.weight)
