"""PowerSGD: matrices of gradients travel as factors of low rank."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from weft.engine import Gradients, Strategy, Sum
from weft.engine.strategy import Exchange
from weft.errors import UsageError
from weft.federated.means import Names, own_mark, own_part, usable, was_counted


class PowerSGD(Strategy):
    """Vogels et al., 2019, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization",
    arXiv:1905.13727.

    A gradient of shape [n, ...] is a matrix [n, m], convolutions included. Two sums a step find the best factors of
    given rank near those of the step before (warm start); what they leave out stays at the site and is added to its
    next gradient (error feedback), so nothing is lost. Factors always have independent columns: where a gradient has
    none to offer, random ones take the place, so that a layer whose gradient was zero is not dead. Per step each site
    sends and receives 4 · rank · (n + m) bytes for a matrix (float32) where that is less than 4 · n · m, 4 bytes for
    every other number, and 32 with 2 for each site. Weights travel with both sums: a site that is lost in between
    counts in neither the factors' mean nor its weight. A site whose numbers the hub left out of one of the sums learns
    it from that sum: its gradient of the step counts nothing, as with dSGD, and what it could not tell before still
    waits.

    Args:
        rank: of the factors.
        warmup_steps: so many steps at the beginning travel whole.
        seed: of the random columns.
        always: factors also where they are no shorter than the matrix.
    """

    def __init__(self, rank: int = 2, warmup_steps: int = 0, seed: int = 0, always: bool = False) -> None:
        if rank < 1 or warmup_steps < 0:
            raise UsageError(f"rank is {rank}, warmup_steps is {warmup_steps}", "give a rank from 1, and steps from 0")
        self.rank, self.warmup_steps, self.seed, self.always = rank, warmup_steps, seed, always
        self.names = Names()
        self.steps: dict[str, int] = {}  # by network
        self.factors: dict[str, Tensor] = {}  # by network and parameter: [m, rank], the same at all sites
        self.errors: dict[str, Tensor] = {}  # what is still to be told of this site, times items: [n, m]

    def watch(self, model: nn.Module) -> None:
        """Learn the names of the parameters."""
        self.names = Names(model)

    def average_gradients(self, gradients: Gradients) -> Exchange:
        """Replace the gradients by the mean over all sites, as far as the factors tell it."""
        network = gradients.network
        step = self.steps.get(network, 0)
        parts, said = own_part(gradients)
        keys = [f"{network} {self.names.of(parameter)}" for parameter in gradients.parameters]
        wanted = {
            key: self._with_error(key, part)
            for key, part in zip(keys, parts, strict=True)
            if step >= self.warmup_steps and self._is_shortened(part)
        }
        whole = [part for key, part in zip(keys, parts, strict=True) if key not in wanted]
        right = {key: self._right(key, step, matrix) for key, matrix in wanted.items()}
        mark = own_mark(self)
        *sums, told, marks = yield Sum(
            f"left factors {network}", [*(wanted[k] @ right[k] for k in wanted), *whole, said, mark]
        )
        total, counted = usable(gradients, told), was_counted(self, marks)
        if total == 0:
            return
        left = {
            key: orthonormal(factor, self._generator(key, step, "left"))
            for key, factor in zip(wanted, sums, strict=False)
        }
        backward = {key: matrix.T @ left[key] for key, matrix in wanted.items()}
        heard, told_right = total, dict[str, Tensor]()
        if wanted:
            *answer, told, marks = yield Sum(f"right factors {network}", [*backward.values(), said, mark])
            heard, told_right = usable(gradients, told), dict(zip(wanted, answer, strict=True))
            counted &= was_counted(self, marks)
            if heard == 0:  # who had items was lost in between
                return
        rest = iter(sums[len(wanted) :])
        for key, tensor in zip(keys, gradients.tensors(), strict=True):
            summed, weight = (left[key] @ told_right[key].T, heard) if key in wanted else (next(rest), total)
            tensor.copy_((summed * (gradients.scale / weight)).reshape(tensor.shape))
        for key, matrix in wanted.items():
            if counted:
                self.errors[key] = matrix - left[key] @ backward[key].T
            self.factors[key] = orthonormal(told_right[key], self._generator(key, step, "right"))
        self.steps[network] = step + 1

    def _is_shortened(self, tensor: Tensor) -> bool:
        if tensor.ndim < 2 or tensor.numel() == 0:
            return False
        rows, columns = len(tensor), tensor.numel() // len(tensor)
        return self.always or min(self.rank, rows, columns) * (rows + columns) < rows * columns

    def _with_error(self, key: str, part: Tensor) -> Tensor:
        """What this site would tell: its gradient and what it could not tell before, [n, m]."""
        matrix = part.reshape(len(part), -1)
        matrix = matrix.float() if matrix.itemsize < 4 else matrix  # 16 bits cannot be factorised
        return matrix + self.errors[key].to(matrix) if key in self.errors else matrix

    def _right(self, key: str, step: int, matrix: Tensor) -> Tensor:
        """The factor to begin with: that of the step before, or a random one, [m, rank]."""
        if key in self.factors:
            return self.factors[key].to(matrix)
        empty = matrix.new_zeros(matrix.shape[1], min(self.rank, *matrix.shape))
        return orthonormal(empty, self._generator(key, step, "first"))

    def _generator(self, *of: object) -> torch.Generator:
        """Random numbers that are the same at all sites, and nobody else's."""
        text = "|".join(map(str, (self.seed, *of)))
        return torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()))

    def state_dict(self) -> dict[str, Any]:
        """ "shared" is the same at all sites, "private" is this site's own."""
        shared = {"steps": dict(self.steps), "factors": dict(self.factors)}
        return {"shared": shared, "private": {"errors": dict(self.errors)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.steps, self.factors = dict(state["shared"]["steps"]), dict(state["shared"]["factors"])
        self.errors = dict(state["private"]["errors"])


def orthonormal(matrix: Tensor, generator: torch.Generator) -> Tensor:
    """An orthonormal basis of as many columns as the matrix has, which spans them; random ones fill it up.

    Args:
        matrix: [n, k] with k ≤ n, of any rank.
        generator: of the random columns.
    """
    basis: Tensor
    basis, triangle = torch.linalg.qr(matrix)
    sizes, eps = triangle.diagonal().abs(), torch.finfo(matrix.dtype).eps * max(matrix.shape)
    if bool((sizes > sizes.max() * eps).all()):
        return basis
    # Which columns are missing, the triangle cannot tell: one that it shows as null may be another's only witness.
    left, values, _ = torch.linalg.svd(matrix, full_matrices=False)
    there = values > values.max() * eps
    random = torch.randn(matrix.shape, generator=generator, dtype=matrix.dtype).to(matrix.device)
    basis, _ = torch.linalg.qr(torch.where(there, left, random))
    return basis
