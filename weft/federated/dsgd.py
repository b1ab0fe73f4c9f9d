"""dSGD: gradients are averaged at every step."""

from __future__ import annotations

from weft.engine import AverageGradients, Gradients
from weft.engine.strategy import Exchange
from weft.federated.means import Aggregate, check_aggregate, mean_over_sites


class dSGD(AverageGradients):
    """Synchronous stochastic gradient descent over sites (Zinkevich et al., 2010, "Parallelized stochastic gradient
    descent"; Chen et al., 2016, arXiv:1604.00981).

    With `aggregate: sum` a step equals one of pooled training on the union of the sites' batches. Each site sends and
    receives 4 · parameters + 8 bytes per step (float32).

    Args:
        aggregate: "sum" (weighted by items), "median", "trimmed_mean" or "krum".
        tolerated: so many sites may send anything, where `aggregate` is not "sum".
    """

    def __init__(self, aggregate: Aggregate = "sum", tolerated: int = 1) -> None:
        check_aggregate(aggregate, tolerated)
        self.aggregate, self.tolerated = aggregate, tolerated

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Replace the gradients by the mean over all sites."""
        if self.aggregate == "sum":
            yield from super().average_gradients(gradients)
            return
        tensors = gradients.tensors()
        means, _ = yield from mean_over_sites(
            f"gradients {gradients.network}", tensors, gradients.weight, self.aggregate, self.tolerated
        )
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean)
