"""A generative adversarial network on the digits: an own task with two networks and two optimizers.

A task says which networks it updates in a step, in which order, and yields one `Update` for each; everything else
(precision, accumulation, checkpoints, resume, reports) is Weft's. Goodfellow et al., 2014.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from weft.data import Batch
from weft.nets import MLP
from weft.tasks import Evaluation, Task, Update


def pixels() -> Tensor:
    """1,797 images [n, 64] of handwritten digits from scikit-learn, pixels in [0, 1]."""
    return torch.tensor(load_digits().data / 16.0, dtype=torch.float32)


class DigitsGAN(nn.Module):
    """A generator of 8 × 8 images from noise, and a discriminator that tells them from real ones.

    Args:
        noise: numbers that an image is made from.
        width: width of the hidden layers.
    """

    def __init__(self, noise: int = 16, width: int = 128) -> None:
        super().__init__()
        self.noise = noise
        self.generator = MLP(in_features=noise, hidden=[width, width], out_features=64, activation="leaky_relu")
        self.discriminator = MLP(
            in_features=64, hidden=[width, width], out_features=1, activation="leaky_relu", dropout=0.3
        )

    def sample(self, count: int, device: torch.device) -> Tensor:
        """`count` generated images [count, 64], pixels in [0, 1]."""
        return self.generator(torch.randn(count, self.noise, device=device)).sigmoid()

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, 1] of images being real: what `weft predict` writes."""
        return self.discriminator(images.flatten(1))


class Adversarial(Task):
    """Trains the discriminator, then the generator, in every step."""

    updates = ("discriminator", "generator")
    score_kind = "regression"
    target_kind = "number"
    default_metrics = ("mae",)

    def networks(self, model: DigitsGAN) -> dict[str, nn.Module]:
        """Each network has an optimizer of its own."""
        return {"discriminator": model.discriminator, "generator": model.generator}

    def training_step(self, model: DigitsGAN, batch: Batch) -> Iterator[Update]:
        """Two updates; the generator's forward runs after the discriminator's optimizer step."""
        real = batch.inputs.flatten(1)
        fake = model.sample(batch.size, real.device)
        judged = model.discriminator(torch.cat([real, fake.detach()])).squeeze(1)
        truth = torch.cat([torch.ones(batch.size), torch.zeros(batch.size)]).to(real.device)
        yield Update(functional.binary_cross_entropy_with_logits(judged, truth), batch.size, "discriminator")

        judged = model.discriminator(fake).squeeze(1)
        yield Update(
            functional.binary_cross_entropy_with_logits(judged, torch.ones_like(judged)), batch.size, "generator"
        )

    def evaluation_step(self, model: DigitsGAN, batch: Batch) -> Evaluation:
        """How far the mean generated image is from the real images' mean, pixel by pixel."""
        real = batch.inputs.flatten(1)
        mean_fake = model.sample(512, real.device).mean(0)
        distance = (mean_fake - real.mean(0)).square().mean()
        return Evaluation(mean_fake.expand_as(real), real, distance, batch.size)
