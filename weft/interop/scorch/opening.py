"""Items and models of scorch's files, as a training has them, for those who want to look at them."""

from __future__ import annotations

from weft.data import Loader, make_loader
from weft.data.split_data import SplitData
from weft.engine import pick_device
from weft.engine.seeding import participant_seed, seed_everything
from weft.interop.scorch.experiment import Flags, read_files
from weft.interop.scorch.items import ScorchItems
from weft.interop.scorch.model import ScorchModel


def open_items(flags: Flags, mode: str = "train") -> ScorchItems:
    """The items of a mode; modes that are opened while others are in use share their index.

    Raises:
        ConfigError, DataError, UsageError: the file or its flags are wrong.
    """
    _, file = read_files(flags)
    index = getattr(file, "DataSetIndex", None)
    return ScorchItems(file.DataSet, flags.dataset_path, mode, index, flags.dataset_args, flags.seed)


def open_batches(flags: Flags, items: ScorchItems, *, shuffle: bool = False) -> Loader:
    """Batches of items; `close` it when it has workers."""
    split = SplitData(items.mode, items, [str(row) for row in range(len(items))], source="item")
    return make_loader(split, batch_size=flags.batch_size, seed=flags.seed, shuffle=shuffle, num_workers=flags.workers)


def open_model(flags: Flags) -> ScorchModel:
    """Network and Socket with the weights that a training begins with: the checkpoint's, or those of the seed.

    Raises:
        ConfigError, DataError, UsageError: the file or its flags are wrong.
        CheckpointError: the checkpoint cannot be read, or does not fit.
    """
    file, _ = read_files(flags)
    device = pick_device("cuda" if flags.use_cuda else "cpu")
    seed_everything(participant_seed(flags.seed, 0))
    checkpoint = None if flags.checkpoint is None else str(flags.checkpoint)
    model = ScorchModel(file.Network, file.Socket, flags.model_args, checkpoint, flags.use_cuda, flags.strict)
    return model.to(device)
