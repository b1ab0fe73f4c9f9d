"""rankDAD: gradients travel as a few products of activations and deltas."""

from __future__ import annotations

from functools import partial, reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from weft.engine import Gather, Gradients, Strategy, Sum
from weft.engine.strategy import Exchange
from weft.errors import UsageError
from weft.federated.means import own_part, usable

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ROUNDING = 64  # a gradient that deltas explain but for so many units of rounding is theirs


class rankDAD(Strategy):
    """Baker et al., 2021, "Peering Beyond the Gradient Veil with Distributed Auto Differentiation", arXiv:2102.09631.

    The gradient of a layer's weight is a product of what flows back into the layer (deltas) and what went forward
    through it (activations), of no higher rank than the batch has rows. Each site sends the largest parts of that
    product as two factors; all sites' factors side by side are the sum. How many parts depends on the gradient (its
    effective rank). Biases and layers other than Linear and Conv1d/2d/3d travel as in dSGD.

    Per step each site sends at most 4 · rank · (n + m) bytes for a weight [n, m] (float32), 4 bytes for every other
    number, and 24; it receives everybody's factors, and the weights that belong to them: a site that was lost since the
    sum counts in neither. A weight for which `rank` factors are no shorter travels whole.

    Args:
        rank: most parts of a gradient that a site sends; None: as many as there are.
        tolerance: parts smaller than this share of the largest one are left out, 0 to 1.
    """

    def __init__(self, rank: int | None = 5, tolerance: float = 1e-3) -> None:
        if (rank is not None and rank < 1) or not 0 <= tolerance < 1:
            raise UsageError(f"rank is {rank}, tolerance is {tolerance}", "give a rank from 1, a tolerance below 1")
        self.rank, self.tolerance = rank, tolerance
        self._layers: dict[int, nn.Module] = {}  # by the weight's identity
        self._deltas: dict[int, list[Tensor] | None] = {}  # of the running step; None: more rows than the weight has
        self._hooks: list[RemovableHandle] = []

    def watch(self, model: nn.Module) -> None:
        """Look at what flows back into each layer."""
        for hook in self._hooks:
            hook.remove()
        layers = [layer for layer in model.modules() if isinstance(layer, LAYERS)]
        self._layers = {id(layer.weight): layer for layer in layers if isinstance(layer.weight, nn.Parameter)}
        self._hooks = [layer.register_forward_hook(self._look) for layer in self._layers.values()]

    def _look(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        weight: Any = layer.weight
        if output.requires_grad and weight.requires_grad:
            output.register_hook(partial(self._keep, layer))  # type: ignore[no-untyped-call]

    def _keep(self, layer: nn.Module, delta: Tensor) -> None:
        weight: Any = layer.weight
        channels = -1 if isinstance(layer, nn.Linear) else 1 - weight.ndim
        rows = delta.detach().movedim(channels, -1).reshape(-1, len(weight))
        kept = self._deltas.setdefault(id(weight), [])
        if kept is not None:
            count = len(rows) + sum(map(len, kept))
            narrow = count < min(len(weight), weight.numel() // len(weight))
            self._deltas[id(weight)] = [*kept, rows] if narrow else None

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Replace the gradients by the mean over all sites, as far as the factors tell it."""
        network = gradients.network
        parts, said = own_part(gradients)
        low = [number for number, parameter in enumerate(gradients.parameters) if self._is_shortened(parameter)]
        deltas = [self._deltas.pop(id(gradients.parameters[number]), None) for number in low]
        whole = [part for number, part in enumerate(parts) if number not in low]
        *sums, told = yield Sum(f"gradients {network}", [*whole, said])
        total = usable(gradients, told)
        if total == 0:
            return
        pairs = [self._factors(parts[number], rows) for number, rows in zip(low, deltas, strict=True)]
        sent = [factor for pair in pairs for factor in pair]
        factors: list[Tensor] = []
        heard = total
        if low:
            *factors, weights = yield Gather(f"factors {network}", [*sent, said[:1]])
            heard = reduce(add, weights.tolist())  # in the order in which sums are taken
            if heard == 0:  # who had items was lost since
                for tensor in gradients.tensors():
                    tensor.zero_()
                return
        rest = iter(sums)
        for number, tensor in enumerate(gradients.tensors()):
            if number in low:
                place = 2 * low.index(number)
                summed, weight = factors[place].T @ factors[place + 1], heard
            else:
                summed, weight = next(rest), total
            tensor.copy_((summed * (gradients.scale / weight)).reshape(tensor.shape))

    def _is_shortened(self, parameter: nn.Parameter) -> bool:
        if id(parameter) not in self._layers:
            return False
        rows, columns = len(parameter), parameter.numel() // len(parameter)
        return self.rank is None or min(self.rank, rows, columns) * (rows + columns) < rows * columns

    def _factors(self, part: Tensor, deltas: list[Tensor] | None) -> tuple[Tensor, Tensor]:
        """Two factors of a gradient, [k, n] and [k, m]: its largest k parts.

        Deltas of few rows span the gradient's columns, which makes it small; its rows are then sums of activations.
        Whether they do is measured: a weight may be used elsewhere, too.
        """
        matrix = part.reshape(len(part), -1)
        matrix = matrix.float() if matrix.itemsize < 4 else matrix  # 16 bits cannot be factorised
        basis, small = None, matrix
        if deltas:
            rows = torch.cat(deltas).to(matrix)
            if bool(torch.isfinite(rows).all()):
                basis = torch.linalg.qr(rows.T)[0]
                small = basis.T @ matrix
            seen = _ROUNDING * torch.finfo(matrix.dtype).eps
            if basis is None or float((matrix - basis @ small).norm()) > seen * float(matrix.norm()):
                basis, small = None, matrix
        left, sizes, right = torch.linalg.svd(small, full_matrices=False)
        limit = len(sizes) if self.rank is None else self.rank
        count = min(limit, int((sizes > sizes.max() * self.tolerance).sum()))
        left = left[:, :count] * sizes[:count]
        left = left if basis is None else basis @ left
        return left.T.contiguous(), right[:count].contiguous()
