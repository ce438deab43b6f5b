"""Distance from the machine's limit: the operations that the work needs, compared with one large matrix product."""

import time
from typing import Any, NamedTuple

import torch


class Cost(NamedTuple):
    """Weights of a model that are multiplied for each token; attention is left out, it is small at these lengths."""

    body: int  # numbers in the matrices of the blocks
    head: int  # in the map to the vocabulary

    @classmethod
    def of(cls, model: Any) -> "Cost":
        """Return the cost of a transformers model."""
        matrices = [(n, w.numel()) for n, w in model.base_model.named_parameters() if w.ndim > 1 and "embed" not in n]
        head = None if hasattr(model, "score") else model.get_output_embeddings().weight.numel()
        return cls(sum(size for _, size in matrices), head or 0)

    def forward(self, tokens: float, logits: float = 0) -> float:
        """Return the floating-point operations of encoding `tokens` and predicting `logits` of them."""
        return 2 * (self.body * tokens + self.head * logits)

    def training(self, tokens: float, logits: float = 0) -> float:
        """Return the operations of a forward and a backward pass."""
        return 3 * self.forward(tokens, logits)


def measure_peak(device: str, dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of one large matrix product, the best of five."""
    size = 16_384 if device.startswith("cuda") else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        product = a @ b
        float(product[0, 0])  # wait for it
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
