"""Messages between sites and hub: what is encoded comes back, in as few bytes as are told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from safetensors.torch import load
from torch import Tensor

from tests.federated.hostile import STUDY, examples, parted, sealed, written
from weft.engine import Gradients
from weft.engine.collectives import Encoding, Gather, Robust, Sum, combine
from weft.errors import MessageRefused, ProtocolError
from weft.federated import Payload, TopK, dSGD, encoded_bytes
from weft.federated.messages import (
    Limits,
    Message,
    answer_in,
    answer_to,
    ask_of,
    collective_of,
    decode,
    encode,
    expected_of,
)
from weft.federated.rounding import rounded
from weft.federated.wire import DTYPES

WHERE: dict[str, Any] = {"study": STUDY, "sender": "north", "epoch": 3, "step": 41, "number": 7}
FIELDS = ("kind", "study", "sender", "epoch", "step", "number", "operation", "tag", "tolerated", "encoding", "content")
ENCODINGS = [Encoding(numbers, sparse) for numbers in ("whole", "fp32", "bf16", "fp16") for sparse in (False, True)]


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same(found: list[Tensor], wanted: list[Tensor], *, exact: bool = True) -> None:
    """Equal to the bit; what is no number may be another one where numbers were rounded."""
    assert [(tensor.shape, tensor.dtype) for tensor in found] == [(tensor.shape, tensor.dtype) for tensor in wanted]
    for one, other in zip(found, wanted, strict=True):
        if not exact and one.is_floating_point():
            assert torch.equal(one.isnan(), other.isnan())
            one, other = one.nan_to_num(0.5, torch.inf, -torch.inf), other.nan_to_num(0.5, torch.inf, -torch.inf)
        assert bits(one) == bits(other)


def payload_bytes(data: bytes) -> int:
    _, payload = parted(data)
    return len(payload) - 8 - int.from_bytes(payload[:8], "little")


def dense(generator: torch.Generator, shapes: list[tuple[int, ...]], weight: bool = True) -> list[Tensor]:
    found = [torch.randn(shape, generator=generator) for shape in shapes]
    return [*found, torch.tensor([16.0, 0.0], dtype=torch.float64)] if weight else found


@some.composite
def a_tensor(draw: Any) -> Tensor:
    """Any bits of any dtype: not a number, infinite, subnormal and minus zero among them; many zeros at times."""
    dtype = draw(some.sampled_from(list(DTYPES.values())))
    shape = draw(some.lists(some.integers(0, 7), max_size=4))
    count = torch.Size(shape).numel()
    data = bytearray(draw(some.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize)))
    if not count:
        return torch.zeros(shape, dtype=dtype)
    if dtype == torch.bool:
        return torch.frombuffer(bytearray(byte & 1 for byte in data), dtype=dtype).reshape(shape)
    tensor = torch.frombuffer(data, dtype=dtype).reshape(shape).clone()
    if draw(some.booleans()):
        tensor.reshape(-1)[draw(some.integers(0, count)) :] = 0
    return tensor


@settings(deadline=None, max_examples=150)
@given(some.lists(a_tensor(), max_size=5), some.sampled_from(ENCODINGS))
def test_what_was_rounded_comes_back_to_the_bit_in_as_many_bytes_as_told(
    tensors: list[Tensor], encoding: Encoding
) -> None:
    asked = [rounded(tensor, encoding.numbers) for tensor in tensors]
    data = encode(ask_of(Sum("gradients main", asked, encoding=encoding), **WHERE))
    assert_same(decode(data).tensors, asked, exact=encoding.numbers == "whole")
    assert payload_bytes(data) == encoded_bytes(asked, encoding)


@settings(deadline=None, max_examples=150)
@given(some.lists(a_tensor(), max_size=5), some.sampled_from(ENCODINGS))
def test_an_answer_is_rounded_as_its_receiver_would_and_what_was_gathered_is_not(
    tensors: list[Tensor], encoding: Encoding
) -> None:
    ask = ask_of(Sum("gradients main", tensors, encoding=encoding), **WHERE)
    told = decode(encode(answer_to(ask, tensors))).tensors
    wanted = [rounded(tensor, encoding.numbers) for tensor in tensors]
    assert_same(told, wanted, exact=encoding.numbers == "whole")
    assert_same([rounded(tensor, encoding.numbers) for tensor in told], wanted, exact=encoding.numbers == "whole")
    tensors = [tensor.reshape(1) if tensor.dim() == 0 else tensor for tensor in tensors]
    ask = ask_of(Gather("factors main", tensors, encoding=encoding), **WHERE)
    assert_same(decode(encode(answer_to(ask, tensors))).tensors, tensors)


def test_parts_that_were_scaled_each_by_itself_survive_in_what_is_gathered() -> None:
    parts = [rounded(torch.tensor([[1.0, 3.14159]]) * 10.0**power, "fp16") for power in (-20, 0, 20)]
    ask = ask_of(Gather("factors main", parts[:1], encoding=Encoding("fp16")), **WHERE)
    answer = combine([Gather("factors main", [part]) for part in parts])
    assert_same(decode(encode(answer_to(ask, answer))).tensors, answer)


@pytest.mark.parametrize("name", list(examples()))
def test_messages_of_every_kind_come_back(name: str) -> None:
    message = examples()[name]
    found = decode(encode(message))
    assert [getattr(found, field) for field in FIELDS] == [getattr(message, field) for field in FIELDS]
    assert_same(found.tensors, message.tensors)
    assert encode(found) == encode(message)
    found.tensors and found.tensors[0].add_(1)  # it is the receiver's own


@pytest.mark.parametrize(
    "asked", [Sum("a", []), Gather("b", []), Robust("c", [], "median", 2), Robust("d", [], "krum", 3)]
)
def test_collectives_come_back_as_they_were_asked(asked: Any) -> None:
    found = collective_of(decode(encode(ask_of(asked, **WHERE))))
    assert found == asked


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("tensors", [14, 30])
def test_a_small_message_takes_at_most_1000_bytes_more_than_its_numbers(tensors: int, encoding: Encoding) -> None:
    shapes = [(24, 24, 3, 3), (24,)] * (tensors // 2)
    asked = _thinned(dense(torch.Generator(), shapes)[:tensors], encoding)
    data = encode(ask_of(Sum("left factors generator", asked, encoding=encoding), **WHERE))
    assert len(data) <= encoded_bytes(asked, encoding) + 1000


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_large_message_takes_at_most_a_fiftieth_more_than_its_numbers(encoding: Encoding) -> None:
    asked = _thinned(dense(torch.Generator(), [(512, 512), (512,)] * 15), encoding)
    data = encode(ask_of(Sum("gradients main", asked, encoding=encoding), **WHERE))
    assert encoded_bytes(asked, encoding) > 200_000
    assert len(data) <= 1.02 * encoded_bytes(asked, encoding)


def _thinned(tensors: list[Tensor], encoding: Encoding) -> list[Tensor]:
    if encoding.sparse:
        tensors = [torch.where(tensor.abs() > 1.8, tensor, 0.0) if tensor.dim() > 1 else tensor for tensor in tensors]
    return [rounded(tensor, encoding.numbers) for tensor in tensors]


@pytest.mark.parametrize("numbers", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("outer", ["payload", "topk"])
def test_what_payloads_and_topk_send_loses_nothing_on_the_way(numbers: Any, outer: str) -> None:
    strategy = Payload(TopK(dSGD(), 0.2), numbers) if outer == "payload" else TopK(Payload(dSGD(), numbers), 0.2)
    generator = torch.Generator().manual_seed(3)
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((9, 7), (5,))]
    for _ in range(4):  # from the second on, something has waited
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        steps = strategy.average_gradients(Gradients("main", parameters, 16))
        collective = next(steps)
        assert collective.encoding == Encoding(numbers, sparse=True)
        message = decode(encode(ask_of(collective, **WHERE)))
        assert_same(message.tensors, collective.tensors)
        with pytest.raises(StopIteration):
            steps.send(message.tensors)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([2 - 2**-23, 2.0**-38]),  # rounded up to a power of two, beside fp16's smallest
        torch.tensor([1.0, 2.0**-39]),
        torch.tensor([1e300, 1e30, 1.0] * 30, dtype=torch.float64),  # beyond float32
        torch.tensor([2.0**-149, 1e-40]),
        torch.tensor([3.4e38, 1e30, -0.0]),
        torch.tensor([float("inf"), 70000.0, 1.0]),
    ],
)
def test_rounding_twice_gives_the_same_as_once(tensor: Tensor) -> None:
    for numbers in ("fp32", "bf16", "fp16"):
        once = rounded(tensor, numbers)
        assert bits(rounded(once, numbers)) == bits(once)
        message = ask_of(Sum("a", [once], encoding=Encoding(numbers)), **WHERE)
        assert_same(decode(encode(message)).tensors, [once])


def test_fp16_keeps_the_smallest_numbers_that_it_can() -> None:
    assert rounded(torch.tensor([2 - 2**-23, 2.0**-38]), "fp16").tolist() == [2.0, 2.0**-38]


def test_the_tensors_are_a_safetensors_file() -> None:
    tensors = dense(torch.Generator(), [(3, 2), (4,)])
    _, payload = parted(encode(ask_of(Sum("gradients main", tensors), **WHERE)))
    flat = load(payload)
    assert torch.equal(flat["F32"], torch.cat([tensor.reshape(-1) for tensor in tensors[:2]]))
    assert flat["F64"].tolist() == [16.0, 0.0]


def test_tensors_of_other_layouts_travel_by_their_content() -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    tensors = [base.transpose(0, 2), base[:, 1], base[0, 0, 1].expand(5), torch.ones(2, requires_grad=True)]
    assert_same(decode(encode(ask_of(Sum("a", tensors), **WHERE))).tensors, [tensor.detach() for tensor in tensors])


def test_shapes_other_than_expected_are_refused() -> None:
    asked = Sum("gradients main", dense(torch.Generator(), [(3, 2)]))
    data = encode(ask_of(asked, **WHERE))
    assert len(decode(data, expected=expected_of(asked)).tensors) == 2
    others = [
        [((2, 3), torch.float32), ((2,), torch.float64)],
        [((3, 2), torch.float64), ((2,), torch.float64)],
        [((3, 2), torch.float32)],
        [((3, 2, 1), torch.float32), ((2,), torch.float64)],
    ]
    for expected in others:
        with pytest.raises(MessageRefused, match="shapes or dtypes"):
            decode(data, expected=expected)


def test_only_what_is_gathered_may_have_another_first_size() -> None:
    one, two = [torch.zeros(2, 3)], [torch.zeros(4, 3)]
    gathered = encode(ask_of(Gather("a", two), **WHERE))
    assert decode(gathered, expected=expected_of(Gather("a", one))).tensors[0].shape == (4, 3)
    with pytest.raises(MessageRefused):
        decode(gathered, expected=expected_of(Sum("a", one)))  # whatever the message says it is
    with pytest.raises(MessageRefused):
        decode(encode(ask_of(Sum("a", two), **WHERE)), expected=expected_of(Sum("a", one)))


def test_only_the_answer_to_what_was_asked_is_taken() -> None:
    asked = ask_of(Sum("gradients main", [torch.ones(3)]), **WHERE)
    answer = answer_to(asked, [torch.full((3,), 2.0)])
    assert answer_in(encode(answer), asked)[0].tolist() == [2.0, 2.0, 2.0]
    others = {"number": 6, "step": 40, "epoch": 2, "tag": "gradients other", "operation": "krum", "tolerated": 1}
    for name, value in [*others.items(), ("kind", "ask"), ("study", STUDY[::-1]), ("sender", "south")]:
        with pytest.raises(MessageRefused, match=f"{name} '?{value}"):
            answer_in(encode(replace(answer, **{name: value})), asked)
    with pytest.raises(MessageRefused, match="shapes"):
        answer_in(encode(replace(answer, tensors=[torch.ones(4)])), asked)


def test_what_is_larger_than_the_limits_is_refused() -> None:
    data = encode(examples()["sum-whole"])
    for limits in (Limits(header=100), Limits(memory=200), Limits(tensors=3)):
        with pytest.raises(MessageRefused):
            decode(data, limits)
    thin = encode(ask_of(Sum("a", [torch.zeros(10_000)], encoding=Encoding(sparse=True)), **WHERE))
    assert len(thin) < 1000
    with pytest.raises(MessageRefused, match="more than 39999 bytes"):
        decode(thin, Limits(memory=39_999))
    assert torch.equal(decode(thin, Limits(memory=40_000)).tensors[0], torch.zeros(10_000))


def test_another_format_says_what_to_do() -> None:
    with pytest.raises(MessageRefused, match="format 2") as refused:
        decode(sealed(*parted(encode(examples()["leave"])), version=2))
    assert "same version" in refused.value.hint


@pytest.mark.parametrize(
    "message",
    [
        Message("hello", STUDY, "../north"),
        Message("hello", "study", "north"),
        Message("hello", STUDY, "north", step=-1),
        Message("hello", STUDY, "north", tensors=[torch.ones(1)]),
        Message("hello", STUDY, "north", content={"loss": float("nan")}),
        Message("hello", STUDY, "north", content={"seed": 2**64}),
        Message("hello", STUDY, "north", content={"path": object()}),
        Message("hello", STUDY, "north", content={1: 2}),
        Message("hello", STUDY, "north", content={"text": "\x1b[2J"}),
        Message("hello", STUDY, "north", content={"text": "x" * (5 << 20)}),
        Message("welcome", STUDY, "hub", operation="sum"),
        Message("ask", STUDY, "north", operation="sum", tag="a\nb"),
        Message("ask", STUDY, "north", operation="product", tag="a"),
        Message("ask", STUDY, "north", operation="gather", tag="a", tensors=[torch.tensor(1.0)]),
        Message("ask", STUDY, "north", operation="sum", tag="a", tensors=[torch.ones(1, dtype=torch.complex64)]),
    ],
)
def test_what_nobody_would_take_is_not_sent(message: Message) -> None:
    with pytest.raises(ProtocolError, match="cannot be sent"):
        encode(message)


def test_content_that_holds_itself_is_not_sent() -> None:
    content: dict[str, Any] = {}
    content["again"] = content
    with pytest.raises(ProtocolError, match="cannot be sent"):
        encode(Message("hello", STUDY, "north", content=content))
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"a": [deep]}
    with pytest.raises(ProtocolError, match="nested"):
        encode(Message("hello", STUDY, "north", content=deep))


def test_the_header_is_json_that_anybody_can_read() -> None:
    text, payload = parted(encode(examples()["sum-bf16-sparse"]))
    header = json.loads(text)
    assert header["encoding"] == ["bf16", True]
    assert header["dtypes"] == [["F32", 5], ["F64", 1], ["BOOL", 1], ["I64", 1]]
    assert header["shapes"][:3] == [[6, 8], [8], [8, 2]]
    assert decode(sealed(written(header), payload)).tag == "gradients main"
