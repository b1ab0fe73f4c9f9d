"""What of a sharded model can be seen in one process: which modules are put together at once, and its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.config.helpers import valid
from weft.config import load_experiment
from weft.engine.checkpoints import CheckpointFolder
from weft.engine.fully_sharded import is_sharded, local, part_of, require_one_network, shard, units_of, whole
from weft.engine.shard_files import (
    commit,
    damage_of,
    read_parts,
    separated,
    sweep_folders,
    unfinished_folder,
    write_parts,
)
from weft.engine.weights import read_weights
from weft.errors import CheckpointError, ConfigError, RunDirectoryError

CPU = torch.device("cpu")


@pytest.fixture
def group() -> Iterator[None]:
    """This process as the only one of a group."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Stack(nn.Module):
    """Blocks in a list between an embedding and a head, which may share their weights."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(2))
        self.ends = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Sequential(nn.Linear(4, 7, bias=False)))
        if tied:
            self.ends[1][0].weight = self.embedding.weight  # type: ignore[index]


def test_blocks_are_put_together_one_by_one() -> None:
    assert units_of(Stack()) == ["blocks.0", "blocks.1", "ends.0", "ends.1"]


def test_a_block_that_shares_weights_with_others_is_left_to_the_whole() -> None:
    assert units_of(Stack(tied=True)) == ["blocks.0", "blocks.1", "ends.0"]


def test_large_layers_of_a_sequence_are_put_together_by_themselves() -> None:
    model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 2))
    assert units_of(model) == ["0"]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()), "are of several types (float32, float64)"),
        (nn.ParameterDict({"scale": nn.Parameter(torch.tensor(1.0))}), "parameter scale is a single number"),
    ],
)
def test_what_cannot_be_sharded_is_refused(model: nn.Module, said: str) -> None:
    with pytest.raises(ConfigError, match="cannot be sharded") as refused:
        shard(model, CPU)
    assert said in refused.value.message


def test_several_networks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"several networks \(one, other\): it cannot be sharded"):
        require_one_network({"one": Stack(), "other": Stack()})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training__precision": "fp16"}, "training.precision: fp16"),
        ({"training__ema": {"decay": 0.9}}, "training.ema"),
        ({"training__compile": True}, "training.compile"),
        ({"training__optimizer": {"Adafactor": {}}}, "the optimizer Adafactor"),
        ({"training__gradient_compression": {"method": "bf16"}}, "training.gradient_compression"),
        ({"run__checkpoint_async": True}, "run.checkpoint_async"),
        ({"run__predictions": True}, "run.predictions"),
    ],
)
def test_settings_that_do_not_go_with_it_are_named(change: dict[str, Any], said: str) -> None:
    load_experiment(valid(run__sharding="fsdp"))
    with pytest.raises(ConfigError, match=f"run.sharding: fsdp does not go with {said}"):
        load_experiment(valid(run__sharding="fsdp", **change))


def written(folder: Path, step: int = 3) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A state whose tensors lie in a folder of parts, and these."""
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (1,))
    given = {"weight": torch.randn(5, 3), "half": torch.randn(4).bfloat16()}
    parts = {name: part_of(tensor, mesh) for name, tensor in given.items()}
    state, taken = separated({"model": {**parts, "buffer": torch.ones(2)}, "best": {"step": None}})
    unfinished = unfinished_folder(folder, step)
    state["shards"] |= commit(unfinished, write_parts(taken, unfinished, first=True), step)
    return state, given


@pytest.mark.usefixtures("group")
def test_parts_are_read_as_they_were_written(tmp_path: Path) -> None:
    state, given = written(tmp_path)
    assert set(state["model"]) == {"buffer"}
    assert damage_of(tmp_path, state["shards"]) is None
    found = {f"model.{name}": torch.zeros_like(tensor) for name, tensor in given.items()}
    read_parts(found, tmp_path / state["shards"]["folder"])
    for name, tensor in given.items():
        assert torch.equal(found[f"model.{name}"], tensor)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_parts({"model.other": torch.zeros(1)}, tmp_path / state["shards"]["folder"])


@pytest.mark.usefixtures("group")
def test_damage_is_told(tmp_path: Path) -> None:
    state, _ = written(tmp_path)
    shards = state["shards"]
    folder = tmp_path / shards["folder"]
    (part,) = folder.iterdir()
    assert damage_of(tmp_path, shards | {"folder": f"../{shards['folder']}"}) == "it names no folder of parts"
    assert damage_of(tmp_path, shards | {"files": {"../x": "0"}}) == "it names no folder of parts"
    assert "No such file" in str(damage_of(tmp_path / "elsewhere", shards))
    (folder / "part-00009.safetensors").touch()
    assert "has other files" in str(damage_of(tmp_path, shards))
    (folder / "part-00009.safetensors").unlink()
    data = part.read_bytes()
    part.write_bytes(data[:-1])
    assert part.name in str(damage_of(tmp_path, shards))


@pytest.mark.usefixtures("group")
def test_folders_go_when_no_state_that_is_kept_names_them(tmp_path: Path) -> None:
    store = CheckpointFolder(tmp_path)
    for step in (1, 2, 3):
        state, _ = written(tmp_path, step)
        store.save_last(state, step)
    unfinished_folder(tmp_path, 4).mkdir()
    (tmp_path / "mine").mkdir()
    again = CheckpointFolder(tmp_path)
    assert sorted(entry.name[:16] for entry in tmp_path.iterdir() if entry.is_dir()) == [
        "mine", "shards-000000002", "shards-000000003",
    ]  # fmt: skip
    loaded = again.load_last()
    assert loaded is not None
    assert Path(loaded["shards"]["folder"]).parent == tmp_path
    sweep_folders(tmp_path, needed=set())
    with pytest.raises(CheckpointError, match="no sound checkpoint"):
        CheckpointFolder(tmp_path).load_last()


@pytest.mark.usefixtures("group")
def test_such_a_checkpoint_is_not_taken_for_pretrained_weights(tmp_path: Path) -> None:
    state, _ = written(tmp_path)
    ((path, _),) = CheckpointFolder(tmp_path).save_last(state, 3)
    with pytest.raises(ConfigError, match="checkpoint of a sharded model"):
        read_weights(path)


@pytest.mark.usefixtures("group")
def test_names_and_values_stay_what_they_were() -> None:
    model = Stack()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shard(model, CPU)
    after = model.state_dict()
    assert list(after) == list(before)
    for name, tensor in after.items():
        assert is_sharded(tensor)
        assert torch.equal(whole(tensor), before[name])
        assert torch.equal(local(tensor), before[name])


@pytest.mark.usefixtures("group")
def test_parts_that_cannot_be_written_are_an_error_that_names_the_process(tmp_path: Path) -> None:
    unfinished_folder(tmp_path, 3).touch()
    with pytest.raises(RunDirectoryError, match="rank 0: cannot write .*kept: the checkpoint before"):
        written(tmp_path)
