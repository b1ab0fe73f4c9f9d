"""Building blocks by name: activations, normalisations, convolutions of two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from weft.errors import UsageError

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
    "mish": lambda: nn.Mish(inplace=True),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "prelu": nn.PReLU,
    "none": nn.Identity,
}

NORMALIZATIONS = ("batch", "instance", "group", "layer", "none")


def choice(value: str, known: Mapping[str, object] | tuple[str, ...], argument: str, network: str) -> str:
    """The lower-case name, or a UsageError with the nearest one."""
    name = str(value).lower()
    if name not in known:
        near = get_close_matches(name, list(known), n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"it can be {', '.join(known)}"
        raise UsageError(f"{network}: {argument} is {value!r}", hint)
    return name


def activation(name: str, network: str = "network") -> nn.Module:
    """An activation layer by name; UsageError for an unknown one."""
    return ACTIVATIONS[choice(name, ACTIVATIONS, "activation", network)]()


def normalization(name: str, channels: int, dimensions: int, network: str = "network") -> nn.Module:
    """A normalisation layer by name, for tensors [n, channels, ...dimensions].

    Args:
        name: batch, instance, group (up to 8 groups), layer (one group) or none.
        channels: number of channels.
        dimensions: spatial dimensions: 0 (vectors), 2 or 3.
        network: who asks, for the error message.
    """
    name = choice(name, NORMALIZATIONS, "normalization", network)
    if name == "batch":
        return (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions](channels)
    if name == "instance":
        if dimensions == 0:
            raise UsageError(f"{network}: instance normalization needs images", "use batch, layer, group or none")
        # The same numbers as InstanceNorm (one group per channel), several times faster on a CPU; and torch.compile and
        # torch.export keep the batch and image size free with it.
        return nn.GroupNorm(channels, channels)
    if name == "group":
        return nn.GroupNorm(max(g for g in range(1, 9) if channels % g == 0), channels)
    return nn.GroupNorm(1, channels) if name == "layer" else nn.Identity()


def convolution(
    dimensions: int, inputs: int, outputs: int, kernel: int = 3, stride: int | tuple[int, ...] = 1
) -> nn.Conv2d | nn.Conv3d:
    """A 2D or 3D convolution that keeps the size (divided by the stride, rounded up)."""
    layer: Callable[..., nn.Conv2d | nn.Conv3d] = nn.Conv2d if dimensions == 2 else nn.Conv3d
    return layer(inputs, outputs, kernel_size=kernel, stride=stride, padding=kernel // 2)


def max_pool(images: Tensor, factors: Sequence[int]) -> Tensor:
    """Largest value of each window of `factors`; an incomplete window at the end counts as well."""
    if images.dim() == 4:
        return nn.functional.max_pool2d(images, list(factors), ceil_mode=True)
    # 3D axis by axis as maxima of reshaped views: the gradient of max_pool3d is not deterministic on CUDA.
    for axis, factor in enumerate(factors, start=2):
        if factor > 1:
            surplus = images.shape[axis] % factor
            padding = [0, 0] * (images.dim() - 1 - axis) + [0, factor - surplus]
            padded = nn.functional.pad(images, padding, value=float("-inf")) if surplus else images
            images = padded.reshape(*padded.shape[:axis], -1, factor, *padded.shape[axis + 1 :]).amax(axis + 1)
    return images


def dropout(rate: float, dimensions: int, network: str) -> nn.Module:
    """Dropout of numbers (0 dimensions) or whole channels; UsageError outside 0 <= rate < 1."""
    if not 0 <= rate < 1:
        raise UsageError(f"{network}: dropout is {rate}", "it is the share of units left out: 0 <= dropout < 1")
    if rate == 0:
        return nn.Identity()
    return (nn.Dropout, nn.Dropout, nn.Dropout2d, nn.Dropout3d)[dimensions](rate)


def check_images(images: Tensor, dimensions: int, channels: int, network: str) -> None:
    """Raise a UsageError unless the input is [n, channels, ...dimensions], with the shapes and the likely fix."""
    if images.dim() == dimensions + 2 and images.shape[1] == channels:
        return
    axes = ", ".join(("height", "width") if dimensions == 2 else ("depth", "height", "width"))
    message = f"{network}: input is {list(images.shape)}, expected [n, {channels}, {axes}]"
    if images.dim() == dimensions + 1:
        hint = "the channel dimension is missing: images.unsqueeze(1), or EnsureChannelFirstd in the transforms"
    elif images.dim() in (4, 5) and images.dim() != dimensions + 2:
        hint = f"these are {images.dim() - 2}D images: set spatial_dims: {images.dim() - 2}"
    elif images.dim() == dimensions + 2 and images.shape[-1] == channels:
        hint = "channels come last here: move them to the second place"
    else:
        found = images.shape[1] if images.dim() > 1 else "no"
        hint = f"the images have {found} channels: set in_channels to that"
    raise UsageError(message, hint)


def check_counts(network: str, **counts: int) -> None:
    """Raise a UsageError for sizes that are not whole numbers >= 1."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{network}: {name} is {value!r}", "it must be a whole number >= 1")


def check_dimensions(spatial_dims: int, network: str) -> int:
    """2 or 3, or a UsageError."""
    if spatial_dims not in (2, 3):
        raise UsageError(f"{network}: spatial_dims is {spatial_dims!r}", "images have 2 dimensions, volumes 3")
    return spatial_dims


def icnr_(weight: Tensor, copies: int) -> Tensor:
    """Initialise the convolution before a pixel shuffle so that the result starts as nearest-neighbour upsampling,
    without checkerboard pattern (Aitken et al. 2017, arXiv:1707.02937).

    Args:
        weight: [outputs * copies, inputs, ...kernel], changed in place.
        copies: how many neighbours one pixel becomes, the product of the upsampling factors.
    """
    with torch.no_grad():
        kernel = torch.empty(weight.shape[0] // copies, *weight.shape[1:], dtype=weight.dtype, device=weight.device)
        nn.init.kaiming_normal_(kernel)
        weight.copy_(kernel.repeat_interleave(copies, 0))
    return weight
