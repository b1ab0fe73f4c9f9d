"""A small convolutional network for classification and regression of images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from weft.errors import UsageError
from weft.nets.layers import activation as activation_layer
from weft.nets.layers import check_counts, check_dimensions, check_images, convolution, max_pool
from weft.nets.layers import dropout as dropout_layer
from weft.nets.layers import normalization as normalization_layer


class SmallCNN(nn.Module):
    """A few convolutions, each followed by halving, and a linear layer on the global mean: any image size will do.

    Args:
        in_channels: channels of the images.
        out_features: number of outputs (logits).
        channels: channels of each stage (convolution, normalisation, activation); between two stages max pooling by 2
            (odd sizes rounded up).
        dropout: share of features left out before the last layer, 0 <= dropout < 1.
        spatial_dims: 2 for images [n, channels, height, width], 3 for volumes [n, channels, depth, height, width].
        activation: relu, leaky_relu, elu, gelu, silu, mish, tanh, sigmoid, prelu, none.
        normalization: batch, instance, group, layer or none.

    Raises:
        UsageError: an argument is out of range, or the input has another shape.
    """

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        channels: Sequence[int] = (16, 32, 64),
        dropout: float = 0.0,
        spatial_dims: int = 2,
        activation: str = "relu",
        normalization: str = "batch",
    ) -> None:
        super().__init__()
        check_counts("SmallCNN", in_channels=in_channels, out_features=out_features)
        check_counts("SmallCNN", **{f"channels[{index}]": width for index, width in enumerate(channels)})
        if not channels:
            raise UsageError("SmallCNN: channels is empty", "give the channels of each stage, e.g. [16, 32, 64]")
        self.in_channels, self.spatial_dims = in_channels, check_dimensions(spatial_dims, "SmallCNN")
        stages: list[nn.Module] = []
        width = in_channels
        for following in channels:
            stages.append(
                nn.Sequential(
                    convolution(spatial_dims, width, following),
                    normalization_layer(normalization, following, spatial_dims, "SmallCNN"),
                    activation_layer(activation, "SmallCNN"),
                )
            )
            width = following
        self.stages = nn.ModuleList(stages)
        self.dropout = dropout_layer(dropout, 0, "SmallCNN")
        self.head = nn.Linear(width, out_features)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, out_features] for images [n, in_channels, ...spatial]."""
        check_images(images, self.spatial_dims, self.in_channels, "SmallCNN")
        features = images
        for index, stage in enumerate(self.stages):
            if index:
                features = max_pool(features, (2,) * self.spatial_dims)
            features = stage(features)
        result: Tensor = self.head(self.dropout(features.flatten(2).mean(2)))
        return result
