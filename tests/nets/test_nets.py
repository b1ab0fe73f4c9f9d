"""Our networks: shapes, gradients, learning, and errors that tell the fix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from weft.errors import UsageError
from weft.nets import MLP, SmallCNN, UNet
from weft.nets.layers import ACTIVATIONS, max_pool, normalization
from weft.nets.unet import DOWNSAMPLING, UPSAMPLING, ShuffleUpsample

SIZES = {2: [(16, 16), (17, 30), (5, 9)], 3: [(8, 8, 8), (9, 7, 10), (4, 5, 6)]}


def small_unet(dimensions: int = 2, **arguments: Any) -> UNet:
    return UNet(
        **{"in_channels": 2, "out_channels": 3, "spatial_dims": dimensions, "channels": [4, 8, 12], **arguments}
    )


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("upsampling", UPSAMPLING)
@pytest.mark.parametrize("downsampling", DOWNSAMPLING)
@pytest.mark.parametrize("residual", [False, True])
def test_a_unet_keeps_any_image_size_and_trains_every_parameter(
    dimensions: int, upsampling: str, downsampling: str, residual: bool
) -> None:
    model = small_unet(dimensions, upsampling=upsampling, downsampling=downsampling, residual=residual)
    for size in SIZES[dimensions]:
        model.zero_grad()
        outputs = model(torch.randn(2, 2, *size))
        assert outputs.shape == (2, 3, *size)
        (outputs * torch.randn(outputs.shape)).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("normalization", ["instance", "batch", "group", "layer", "none"])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_layers_are_chosen_by_name(normalization: str, activation: str) -> None:
    model = small_unet(normalization=normalization, activation=activation, dropout=0.2, convolutions=1)
    model(torch.randn(2, 2, 16, 16)).sum().backward()
    small = SmallCNN(1, 2, normalization=normalization, activation=activation)
    small(torch.randn(2, 1, 16, 16)).sum().backward()
    for name, parameter in [*model.named_parameters(), *small.named_parameters()]:
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_the_unet_of_the_documentation_and_strides_per_axis() -> None:
    model = UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=[16, 32, 64], strides=[2, 2])
    assert model(torch.randn(1, 1, 16, 16, 16)).shape == (1, 2, 16, 16, 16)
    for upsampling in UPSAMPLING:
        model = small_unet(3, strides=[(1, 2, 2), (2, 2, 3)], upsampling=upsampling)
        assert model(torch.randn(1, 2, 5, 12, 13)).shape == (1, 3, 5, 12, 13)
    assert [block.units[0][0].out_channels for block in UNet(1, 1, depth=3, width=6).down] == [6, 12, 24]


def test_the_voxel_shuffle_is_pixel_shuffle_in_2d_and_starts_as_nearest_neighbour() -> None:
    layer = ShuffleUpsample(3, 5, (2, 2))
    images = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(layer(images), nn.functional.pixel_shuffle(layer.convolution(images), 2))
    for dimensions in (2, 3):
        layer = ShuffleUpsample(3, 5, (2,) * dimensions)
        images = torch.randn(2, 3, *(4, 3, 5)[:dimensions])
        upsampled = layer(images)
        corners = upsampled[(..., *(slice(None, None, 2) for _ in range(dimensions)))]
        torch.testing.assert_close(upsampled, nn.functional.interpolate(corners, scale_factor=2.0, mode="nearest"))


@pytest.mark.parametrize("size", [(8, 8, 8), (7, 5, 9), (1, 2, 3)])
def test_pooling_in_3d_is_max_pooling(size: tuple[int, ...]) -> None:
    images = torch.randn(2, 3, *size, requires_grad=True)
    ours, theirs = max_pool(images, (2, 1, 3)), nn.functional.max_pool3d(images, (2, 1, 3), ceil_mode=True)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn(ours.shape)
    one, other = (torch.autograd.grad((out * weights).sum(), images)[0] for out in (ours, theirs))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_instance_normalization_is_that_of_torch(dimensions: int) -> None:
    images = torch.randn(3, 5, *(6, 7, 4)[:dimensions])
    theirs = nn.InstanceNorm2d(5, affine=True) if dimensions == 2 else nn.InstanceNorm3d(5, affine=True)
    ours = normalization("instance", 5, dimensions)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(ours(images), theirs(images))


def test_a_unet_learns_a_tiny_batch() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 1, 16, 16)
    labels = (nn.functional.avg_pool2d(images, 3, 1, 1)[:, 0] > 0).long()
    model = UNet(1, 2, channels=[8, 16], upsampling="pixel_shuffle")
    assert overfit(model, images, labels, steps=80) < 0.1


def test_a_small_cnn_learns_a_tiny_batch_of_images_and_volumes() -> None:
    torch.manual_seed(0)
    labels = torch.arange(6) % 3
    for dimensions in (2, 3):
        images = torch.randn(6, 1, *(8, 9, 7)[:dimensions]) + labels.view(-1, *[1] * (dimensions + 1))
        model = SmallCNN(1, 3, channels=[8, 16], spatial_dims=dimensions)
        assert overfit(model, images, labels, steps=60) < 0.1


def test_an_mlp_learns_a_tiny_batch() -> None:
    torch.manual_seed(0)
    inputs, labels = torch.randn(16, 5), torch.arange(16) % 2
    for name in ("none", "batch", "layer", "group"):
        assert overfit(MLP(5, 2, hidden=[32], normalization=name), inputs, labels, steps=150) < 0.1


def overfit(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, steps: int) -> float:
    """The loss after some steps on one batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (28, 28), (64, 5)])
def test_a_small_cnn_takes_any_image_size(size: tuple[int, int]) -> None:
    model = SmallCNN(3, 4, dropout=0.5)
    assert model.eval()(torch.randn(2, 3, *size)).shape == (2, 4)
    assert SmallCNN(3, 4, spatial_dims=3).eval()(torch.randn(2, 3, 2, *size)).shape == (2, 4)


def test_an_mlp_flattens_images_and_may_be_linear() -> None:
    assert MLP(64, 10)(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    assert sum(parameter.numel() for parameter in MLP(5, 2, hidden=[]).parameters()) == 12
    assert MLP(66, 2, hidden=[64, 32])(torch.randn(7, 66)).shape == (7, 2)


def test_dropout_acts_in_training_only() -> None:
    for model, inputs in (
        (MLP(20, 4, dropout=0.5), torch.randn(3, 20)),
        (SmallCNN(1, 4, dropout=0.5), torch.randn(3, 1, 8, 8)),
        (small_unet(dropout=0.5), torch.randn(3, 2, 8, 8)),
        (small_unet(3, dropout=0.5), torch.randn(3, 2, 8, 8, 8)),
    ):
        assert not torch.equal(model(inputs), model(inputs))
        model.eval()
        assert torch.equal(model(inputs), model(inputs))


@pytest.mark.parametrize("upsampling", UPSAMPLING)
def test_channels_last_and_autocast_change_only_rounding(upsampling: str) -> None:
    torch.manual_seed(0)
    model = small_unet(upsampling=upsampling, residual=True)
    images = torch.randn(2, 2, 15, 14)
    expected = model(images)
    last = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(images)
    torch.testing.assert_close(low.float(), expected, rtol=0.2, atol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_unet_compiles_to_the_same_outputs_for_several_sizes(dimensions: int) -> None:
    torch.manual_seed(0)
    unet = small_unet(dimensions, channels=[4, 6], convolutions=1, upsampling="pixel_shuffle", downsampling="max_pool")
    compiled = torch.compile(unet.eval(), fullgraph=True)
    for size in ((9, 8, 10), (12, 7, 6)):
        images = torch.randn(2, 2, *size[:dimensions])
        torch.testing.assert_close(compiled(images), unet(images), rtol=1e-4, atol=1e-4)


def test_networks_load_the_state_of_others() -> None:
    for model, other in ((small_unet(), small_unet()), (SmallCNN(2, 3), SmallCNN(2, 3))):
        other.load_state_dict(model.state_dict())
        images = torch.randn(2, 2, 16, 16)
        assert torch.equal(model.eval()(images), other.eval()(images))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: small_unet(upsampling="pixelshuffle"), r"'pixelshuffle'(.|\n)*did you mean 'pixel_shuffle'"),
        (lambda: small_unet(downsampling="avg"), "strides, max_pool"),
        (lambda: small_unet(activation="leakyrelu"), "did you mean 'leaky_relu'"),
        (lambda: small_unet(normalization="batchnorm"), "did you mean 'batch'"),
        (lambda: small_unet(strides=[2]), "3 levels need 2 strides, got 1"),
        (lambda: small_unet(strides=[2, (2, 2, 2)]), r"strides\[1\]"),
        (lambda: small_unet(strides=[2, 0]), r"strides\[1\] is 0"),
        (lambda: small_unet(channels=[4, -1]), r"channels\[1\] is -1"),
        (lambda: small_unet(dropout=1.0), "0 <= dropout < 1"),
        (lambda: small_unet(kernel_size=2), "must be odd"),
        (lambda: small_unet(1), "spatial_dims is 1"),
        (lambda: UNet(0, 1), "in_channels is 0"),
        (lambda: SmallCNN(1, 2, channels=[]), "channels is empty"),
        (lambda: SmallCNN(1, 2, spatial_dims=4), "spatial_dims is 4"),
        (lambda: MLP(4, 2, hidden=[3.5]), r"hidden\[0\] is 3.5"),
        (lambda: MLP(4, 2, normalization="instance"), "normalization is 'instance'"),
        (lambda: MLP(4, 2, activation="rleu"), "did you mean 'relu'"),
    ],
)
def test_bad_arguments_are_told_with_a_remedy(build: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        build()


@pytest.mark.parametrize(
    ("build", "shape", "told"),
    [
        (lambda: small_unet(), (2, 16, 16), r"expected \[n, 2, height, width\](.|\n)*unsqueeze"),
        (lambda: small_unet(), (2, 2, 8, 8, 8), "spatial_dims: 3"),
        (lambda: small_unet(3), (2, 2, 8, 8), "channel dimension is missing"),
        (lambda: small_unet(), (2, 1, 16, 16), r"have 1 channels: set in_channels"),
        (lambda: small_unet(), (2, 16, 16, 2), "channels come last"),
        (lambda: small_unet(), (2, 2, 4, 3), "single point"),
        (lambda: SmallCNN(1, 2), (2, 3, 8, 8), "SmallCNN: input is"),
        (lambda: MLP(10, 2), (4, 9), "in_features: 9"),
    ],
)
def test_bad_inputs_are_told_with_shapes_and_a_remedy(build: Any, shape: tuple[int, ...], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        build()(torch.zeros(shape))


@pytest.mark.gpu
@pytest.mark.parametrize("dimensions", [2, 3])
def test_networks_train_deterministically_on_a_gpu(dimensions: int) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        results = []
        for _ in range(2):
            torch.manual_seed(0)
            images = torch.randn(2, 2, *(17, 16, 18)[:dimensions], device="cuda")
            outputs = []
            for downsampling in DOWNSAMPLING:
                for upsampling in UPSAMPLING:
                    model = small_unet(dimensions, upsampling=upsampling, downsampling=downsampling).cuda()
                    model(images).square().mean().backward()
                    outputs += [parameter.grad.clone() for parameter in model.parameters()]
            cnn = SmallCNN(2, 3, spatial_dims=dimensions).cuda()
            cnn(images).square().mean().backward()
            results.append([*outputs, *(parameter.grad.clone() for parameter in cnn.parameters())])
        assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    finally:
        torch.use_deterministic_algorithms(False)
