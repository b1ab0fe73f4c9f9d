"""A multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from weft.errors import UsageError
from weft.nets.layers import activation as activation_layer
from weft.nets.layers import check_counts, choice, dropout, normalization


class MLP(nn.Module):
    """Multilayer perceptron on vectors; images and other shapes are flattened.

    Args:
        in_features: numbers per sample.
        out_features: number of outputs (logits).
        hidden: width of each hidden layer; an empty list is a linear model.
        dropout: share of hidden units left out while training, 0 <= dropout < 1.
        activation: relu, leaky_relu, elu, gelu, silu, mish, tanh, sigmoid, prelu, none.
        normalization: batch, layer, group or none, before each activation.

    Raises:
        UsageError: an argument is out of range, or the input does not have `in_features` numbers per sample.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] = (64, 32),
        dropout: float = 0.0,
        activation: str = "relu",
        normalization: str = "none",
    ) -> None:
        super().__init__()
        check_counts("MLP", in_features=in_features, out_features=out_features)
        check_counts("MLP", **{f"hidden[{index}]": width for index, width in enumerate(hidden)})
        self.in_features = in_features
        layers: list[nn.Module] = []
        width = in_features
        for following in hidden:
            layers += _hidden_layer(width, following, dropout, activation, normalization)
            width = following
        self.layers = nn.Sequential(*layers, nn.Linear(width, out_features))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [n, out_features] for inputs [n, ...] with `in_features` numbers per sample."""
        if inputs.dim() != 2:
            inputs = inputs.flatten(1)
        if inputs.shape[1] != self.in_features:
            raise UsageError(
                f"MLP: input has {inputs.shape[1]} numbers per sample, expected in_features={self.in_features}",
                f"set in_features: {inputs.shape[1]}, or check the inputs of the dataset",
            )
        result: Tensor = self.layers(inputs)
        return result


def _hidden_layer(width: int, following: int, rate: float, activation: str, normal: str) -> list[nn.Module]:
    parts: list[nn.Module] = [nn.Linear(width, following)]
    if choice(normal, ("batch", "layer", "group", "none"), "normalization", "MLP") != "none":
        parts.append(normalization(normal, following, 0, "MLP"))
    parts.append(activation_layer(activation, "MLP"))
    left_out = dropout(rate, 0, "MLP")
    return parts if isinstance(left_out, nn.Identity) else [*parts, left_out]
