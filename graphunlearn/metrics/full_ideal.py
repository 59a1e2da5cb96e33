"""The NDCG whose ideal ranks all test positives, also those beyond the length of the list."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.metrics import LinkPredNDCG

__all__ = ["FullIdealNDCG"]


class FullIdealNDCG(LinkPredNDCG):
    r"""NDCG at :math:`k` with the ideal of all test positives :math:`T`.

    .. math:: \frac{\sum_j 1/\log_2(r_j + 1)}{\sum_{j \le |T|} 1/\log_2(j + 1)}

    Args:
        k: Length of the recommendation list.

    Source: the evaluation of CURE4Rec, arXiv 2408.14393.

    Example:
        >>> metric = FullIdealNDCG(k=1)
        >>> metric.update(torch.tensor([[4]]), torch.tensor([[0, 0], [4, 5]]))  # one of two positives, at rank 1
        >>> metric.compute()
        tensor(0.6131)
    """

    def __init__(self, k: int) -> None:
        super().__init__(k=k)

    def _compute(self, data: Any) -> Tensor:
        found = data.pred_rel_mat[:, : self.k]
        gain: Tensor = (found / self.discount[: found.size(1)]).sum(1)
        most = int(data.label_count.max()) if len(data.label_count) else 0
        ideal = torch.arange(2, most + 2, device=found.device, dtype=gain.dtype).log2().reciprocal().cumsum(0)
        best = torch.cat([ideal.new_zeros(1), ideal])[data.label_count]
        return torch.where(best > 0, gain / best.clamp(min=torch.finfo(best.dtype).tiny), torch.zeros_like(gain))
