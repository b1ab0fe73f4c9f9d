"""The remote sums in order of names, and refuses what is damaged, hostile or not of the exchange, naming the site."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.engine.collectives import Collective, Gather, Sum, combine
from weft.errors import MessageRefused, ProtocolError
from weft.federated.messages import ask_of, decode, encode
from weft.interop.coinstac.hub import checked_name, exchange, read_file

STUDY = "0123456789abcdef" * 4


def message(site: str, collective: Collective, number: int = 4) -> bytes:
    return encode(ask_of(collective, study=STUDY, sender=site, epoch=0, step=2, number=number))


@given(st.dictionaries(st.sampled_from(["local0", "local1", "local10", "local2"]), st.floats(-1e6, 1e6), min_size=1))
def test_the_answer_is_that_of_the_driver_in_one_process(values: dict[str, float]) -> None:
    asked: dict[str, Collective] = {name: Sum("g", [torch.tensor([value, 1.0])]) for name, value in values.items()}
    answer = exchange({name: message(name, one) for name, one in asked.items()}, study=STUDY, number=4)
    expected = combine([asked[name] for name in sorted(asked)])
    assert torch.equal(decode(answer).tensors[0], expected[0])


def test_sites_that_ask_for_different_things_are_told_apart() -> None:
    asked = {"local0": Sum("g", [torch.zeros(2)]), "local1": Sum("g", [torch.zeros(3)])}
    with pytest.raises(ProtocolError, match=r"local0 asks .*\[\[2\]\], local1 .*\[\[3\]\]"):
        exchange({name: message(name, one) for name, one in asked.items()}, study=STUDY, number=4)
    gathered = {name: Gather("g", [torch.arange(size)]) for name, size in (("local0", 2), ("local1", 3))}
    answer = exchange({name: message(name, one) for name, one in gathered.items()}, study=STUDY, number=4)
    assert decode(answer).tensors[0].tolist() == [0, 1, 0, 1, 2]


def test_a_single_number_with_any_stride_travels() -> None:
    """As the gradient of a bias with one number may lie."""
    one = torch.tensor(2.5).expand(1)
    assert one.stride() == (0,)
    assert decode(message("local0", Sum("g", [one, one[:0], torch.ones(4)[::2]]))).tensors[0].tolist() == [2.5]


def test_a_message_of_another_exchange_study_or_site_is_refused_by_the_name_of_its_site() -> None:
    good = message("local0", Sum("g", [torch.ones(1)]))
    other = message("local1", Sum("g", [torch.ones(1)]))
    hostile = {
        "number": replace(decode(other), number=3),
        "study": replace(decode(other), study="f" * 64),
        "sender": replace(decode(other), sender="local0"),
        "kind": replace(decode(other), kind="answer"),
    }
    for what, changed in hostile.items():
        with pytest.raises(MessageRefused, match=f"local1: its message has {what}"):
            exchange({"local0": good, "local1": encode(changed)}, study=STUDY, number=4)
    for damaged in (other[:-1], other[:60] + b"!" + other[61:], b"", b"cos\nsystem\n(S'touch x'\ntR."):
        with pytest.raises(MessageRefused, match="local1: a message of"):
            exchange({"local0": good, "local1": damaged}, study=STUDY, number=4)


def test_pickled_arrays_in_place_of_a_message_are_refused_and_not_executed(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    np.save(tmp_path / "grads.npy", np.array([Hostile()], dtype=object), allow_pickle=True)
    data = read_file(tmp_path, "grads.npy", "local1")
    with pytest.raises(MessageRefused, match="local1"):
        exchange({"local1": data}, study=STUDY, number=0)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", "..", ".hidden", "", "a\0b", "a\nb", 7, None, "x" * 999]
)
def test_a_name_that_is_a_path_is_refused(name: object) -> None:
    with pytest.raises(MessageRefused, match="local2 names a file"):
        checked_name(name, "local2")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "inside" / "message").symlink_to(tmp_path / "secret")
    with pytest.raises(MessageRefused, match="local0 names the file message"):
        read_file(tmp_path / "inside", "message", "local0")
