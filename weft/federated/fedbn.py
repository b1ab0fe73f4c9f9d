"""FedBN: FedAvg that leaves each site its normalisation layers."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from weft.federated.fedavg import FedAvg

NORMALISATION = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)  # the first: batch and instance normalisation


class FedBN(FedAvg):
    """Li et al., 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization",
    arXiv:2102.07623.

    Weights and running statistics of normalisation layers (batch, instance, group, layer) stay at the site, so sites
    end with models of their own. As FedAvg, 4 bytes each way per round (float32) for each parameter that travels.

    Args:
        steps_per_round, aggregate, tolerated: see `FedAvg`.
    """

    buffers = "private"
    private: frozenset[str] = frozenset()

    def watch(self, model: nn.Module) -> None:
        """Find the normalisation layers."""
        super().watch(model)
        self.private = frozenset(
            f"{module}.{name}" if module else name
            for module, layer in model.named_modules()
            if isinstance(layer, NORMALISATION)
            for name, _ in layer.named_parameters(recurse=False)
        )

    def own_tensors(self, model: nn.Module) -> frozenset[str]:
        """Weights and statistics of the normalisation layers."""
        return super().own_tensors(model) | self.private

    def shared(self, network: str) -> list[str]:
        """The parameters of all other layers."""
        return [name for name in super().shared(network) if name not in self.private]
