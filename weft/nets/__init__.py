"""A few networks of Weft's own: `MLP`, `SmallCNN`, `UNet`. Others come by name from MONAI or any import path."""

from weft.nets.cnn import SmallCNN
from weft.nets.mlp import MLP
from weft.nets.unet import UNet

__all__ = ["MLP", "SmallCNN", "UNet"]
