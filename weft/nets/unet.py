"""A U-Net for images and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from weft.errors import UsageError
from weft.nets.layers import activation as activation_layer
from weft.nets.layers import check_counts, check_dimensions, check_images, choice, convolution, icnr_, max_pool
from weft.nets.layers import dropout as dropout_layer
from weft.nets.layers import normalization as normalization_layer

UPSAMPLING = ("transposed", "pixel_shuffle", "interpolate")
DOWNSAMPLING = ("strides", "max_pool")


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) for 2D and 3D; any image size, also odd ones.

    Every level halves the size rounding up; on the way back the surplus row is cropped, so nothing is padded.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the logits: classes with background, or 1.
        spatial_dims: 2 for [n, channels, height, width], 3 for [n, channels, depth, height, width].
        channels: channels of each level, from full size down; None makes `width` * 2**level for `depth` levels.
        strides: factor between two levels, one fewer than channels; each a number or one number per axis. Default 2.
        depth: number of levels when `channels` is None.
        width: channels of the first level when `channels` is None.
        convolutions: convolutions per block.
        kernel_size: size of the kernels, odd.
        upsampling: "transposed" (convolution), "pixel_shuffle" (Shi et al. 2016, arXiv:1609.05158, initialised without
            checkerboard after Aitken et al. 2017, arXiv:1707.02937; in 3D a voxel shuffle) or "interpolate" (nearest
            neighbour, then a 1x1 convolution).
        downsampling: "strides" (strided convolution) or "max_pool".
        dropout: share of channels left out after each convolution while training, 0 <= dropout < 1.
        activation: relu, leaky_relu, elu, gelu, silu, mish, tanh, sigmoid, prelu, none.
        normalization: instance, batch, group, layer or none.
        residual: whether each block adds its input to its output.

    Raises:
        UsageError: an argument is out of range, or the input has another shape or is too small.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spatial_dims: int = 2,
        channels: Sequence[int] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        depth: int = 4,
        width: int = 16,
        convolutions: int = 2,
        kernel_size: int = 3,
        upsampling: str = "transposed",
        downsampling: str = "strides",
        dropout: float = 0.0,
        activation: str = "leaky_relu",
        normalization: str = "instance",
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.spatial_dims, self.in_channels = check_dimensions(spatial_dims, "UNet"), in_channels
        check_counts("UNet", in_channels=in_channels, out_channels=out_channels, depth=depth, width=width)
        check_counts("UNet", convolutions=convolutions, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise UsageError(f"UNet: kernel_size is {kernel_size}", "it must be odd, so that the size is kept")
        levels = [width * 2**level for level in range(depth)] if channels is None else list(channels)
        check_counts("UNet", **{f"channels[{index}]": count for index, count in enumerate(levels)})
        self.strides = _strides(strides, len(levels), spatial_dims)
        self.normalization = str(normalization).lower()
        pooled = choice(downsampling, DOWNSAMPLING, "downsampling", "UNet") == "max_pool"
        upsampling = choice(upsampling, UPSAMPLING, "upsampling", "UNet")

        def block(inputs: int, outputs: int, stride: tuple[int, ...]) -> nn.Module:
            pool = stride if pooled and prod(stride) > 1 else None
            size = (1,) * spatial_dims if pooled else stride
            return Block(
                inputs, outputs, size, pool, convolutions, kernel_size, dropout, activation, normalization, residual
            )

        one = (1,) * spatial_dims
        self.down = nn.ModuleList([block(in_channels, levels[0], one)])
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        for upper, lower, stride in zip(levels, levels[1:], self.strides, strict=False):
            self.down.append(block(upper, lower, stride))
            self.up.append(upsample_layer(upsampling, lower, upper, stride))
            self.merge.append(block(2 * upper, upper, one))
        self.head = convolution(spatial_dims, levels[0], out_channels, kernel=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, out_channels, ...spatial] for images [n, in_channels, ...spatial]."""
        check_images(images, self.spatial_dims, self.in_channels, "UNet")
        self._check_size(images)
        features, skips = images, []
        for block in self.down:
            features = block(features)
            skips.append(features)
        skips.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            skip = skips.pop()
            features = merge(torch.cat((skip, crop(up(features), skip.shape[2:])), 1))
        result: Tensor = self.head(features)
        return result

    def _check_size(self, images: Tensor) -> None:
        size = list(images.shape[2:])
        for stride in self.strides:
            size = [(length + step - 1) // step for length, step in zip(size, stride, strict=True)]
        if self.normalization == "instance" and prod(size) == 1:
            raise UsageError(
                f"UNet: input {list(images.shape)} shrinks to a single point after {len(self.strides)} levels, "
                "which instance normalization cannot scale",
                "use fewer levels (shorter channels and strides), larger images or crops, or normalization: group",
            )


class Block(nn.Module):
    """Convolution, normalisation, activation and dropout, some times over; the first one may shrink the image."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: tuple[int, ...],
        pool: tuple[int, ...] | None,
        convolutions: int,
        kernel_size: int,
        dropout: float,
        activation: str,
        normalization: str,
        residual: bool,
    ) -> None:
        super().__init__()
        dimensions = len(stride)
        self.pool = pool
        units: list[nn.Module] = []
        for index in range(convolutions):
            step = stride if index == 0 else 1
            parts = [
                convolution(dimensions, outputs if index else inputs, outputs, kernel_size, step),
                normalization_layer(normalization, outputs, dimensions, "UNet"),
                activation_layer(activation, "UNet"),
                dropout_layer(dropout, dimensions, "UNet"),
            ]
            units.append(nn.Sequential(*(part for part in parts if not isinstance(part, nn.Identity))))
        self.units = nn.Sequential(*units)
        self.shortcut: nn.Module | None = None
        if residual:
            same = inputs == outputs and prod(stride) == 1
            self.shortcut = nn.Identity() if same else convolution(dimensions, inputs, outputs, 1, stride)

    def forward(self, images: Tensor) -> Tensor:
        """Features [n, outputs, ...spatial]."""
        if self.pool is not None:
            images = max_pool(images, self.pool)
        result: Tensor = self.units(images)
        return result if self.shortcut is None else result + self.shortcut(images)


class ShuffleUpsample(nn.Module):
    """Upsampling by a 1x1 convolution to factor**dimensions as many channels, shuffled into space."""

    def __init__(self, inputs: int, outputs: int, factors: tuple[int, ...]) -> None:
        super().__init__()
        self.factors = factors
        self.convolution = convolution(len(factors), inputs, outputs * prod(factors), 1)
        icnr_(self.convolution.weight, prod(factors))
        if self.convolution.bias is not None:
            nn.init.zeros_(self.convolution.bias)

    def forward(self, images: Tensor) -> Tensor:
        """[n, outputs, ...spatial * factors]."""
        features: Tensor = self.convolution(images)
        size, dimensions = features.shape[2:], len(self.factors)
        split = features.reshape(features.shape[0], -1, *self.factors, *size)
        order = [axis for first in range(2, 2 + dimensions) for axis in (first + dimensions, first)]
        target = [length * factor for length, factor in zip(size, self.factors)]
        return split.permute(0, 1, *order).reshape(features.shape[0], split.shape[1], *target)


class InterpolateUpsample(nn.Module):
    """Nearest-neighbour upsampling after a 1x1 convolution (cheaper in that order, and the same result).

    Linear interpolation is left out on purpose: its gradient is not deterministic on CUDA.
    """

    def __init__(self, inputs: int, outputs: int, factors: tuple[int, ...]) -> None:
        super().__init__()
        self.factors = [float(factor) for factor in factors]
        self.convolution = convolution(len(factors), inputs, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """[n, outputs, ...spatial * factors]."""
        return nn.functional.interpolate(self.convolution(images), scale_factor=self.factors, mode="nearest")


def upsample_layer(name: str, inputs: int, outputs: int, factors: tuple[int, ...]) -> nn.Module:
    """The upsampling layer of a level by name."""
    if name == "pixel_shuffle":
        return ShuffleUpsample(inputs, outputs, factors)
    if name == "interpolate":
        return InterpolateUpsample(inputs, outputs, factors)
    layer = nn.ConvTranspose2d if len(factors) == 2 else nn.ConvTranspose3d
    return layer(inputs, outputs, kernel_size=factors, stride=factors)  # type: ignore[arg-type]


def crop(images: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` rows of every spatial axis."""
    for axis, length in enumerate(size, start=2):
        if images.shape[axis] != length:
            images = images.narrow(axis, 0, length)
    return images


def _strides(strides: Sequence[int | Sequence[int]] | None, levels: int, dimensions: int) -> list[tuple[int, ...]]:
    """One stride per axis for each step down."""
    given = [2] * (levels - 1) if strides is None else list(strides)
    if len(given) != levels - 1:
        raise UsageError(
            f"UNet: {levels} levels need {levels - 1} strides, got {len(given)}: {given}",
            "channels has one number per level, strides one per step between two levels",
        )
    full: list[tuple[int, ...]] = []
    for index, stride in enumerate(given):
        axes = (stride,) * dimensions if isinstance(stride, int) else tuple(stride)
        if len(axes) != dimensions:
            raise UsageError(
                f"UNet: strides[{index}] is {stride}", f"give one number, or {dimensions} numbers for {dimensions}D"
            )
        check_counts("UNet", **{f"strides[{index}]": step for step in axes})
        full.append(axes)
    return full
