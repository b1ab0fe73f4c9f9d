"""Messages that nobody should send: mutations of good ones, and a corpus of the worst.

`python -m tests.federated.hostile` writes the corpus anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weft.engine.collectives import Encoding, Gather, Robust, Sum
from weft.federated.messages import Message, answer_to, ask_of, encode
from weft.federated.rounding import rounded

CORPUS = Path(__file__).parent / "corpus"
STUDY = "5eed" * 16
TOUCHED = Path("touched-by-a-message")  # what would be there if a pickle were read
HEAD = 12  # bytes in front of the header


class Bomb:
    """A pickle of it touches a file when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(TOUCHED)!r}, 'w').close()",)


BOMB = pickle.dumps(Bomb(), protocol=2)


def tensors_of(encoding: Encoding, seed: int = 0) -> list[Tensor]:
    """What a small network sends, rounded and thinned already."""
    shapes = ((6, 8), (8,), (8, 2), (), (0, 3))  # numbers are the same on every machine
    found = [((torch.arange(math.prod(s)) * 37 + seed) % 101 - 50).div(12).reshape(s) for s in shapes]
    if encoding.sparse:
        found = [torch.where(tensor > 3.2, tensor, 0.0) for tensor in found]
    found = [rounded(tensor, encoding.numbers) for tensor in found]
    return [*found, torch.tensor([16.0, 0.0], dtype=torch.float64), torch.tensor([True, False]), torch.arange(3)]


def examples() -> dict[str, Message]:
    """Good messages of every kind and encoding."""
    where = {"study": STUDY, "sender": "north", "epoch": 1, "step": 12, "number": 40}
    found = {}
    for numbers in ("whole", "fp32", "bf16", "fp16"):
        for sparse in (False, True):
            encoding = Encoding(numbers, sparse)
            asked = Sum("gradients main", tensors_of(encoding), encoding=encoding)
            found[f"sum-{numbers}{'-sparse' if sparse else ''}"] = ask_of(asked, **where)  # type: ignore[arg-type]
    gathered = Gather("factors main", [torch.arange(6.0).reshape(2, 3), torch.tensor([2])])
    found["gather"] = ask_of(gathered, **where)  # type: ignore[arg-type]
    asked_robust = Robust("round main", [torch.arange(4.0), torch.ones(1, dtype=torch.float64)], "krum", 1)
    found["krum"] = ask_of(asked_robust, **where)  # type: ignore[arg-type]
    found["answer"] = answer_to(found["sum-whole"], tensors_of(Encoding(), 1))
    found["hello"] = Message("hello", STUDY, "north", content={"weft": "1.0", "sites": ["north", "south"], "deep": {}})
    found["welcome"] = Message("welcome", STUDY, "hub", 1, 12, 40)
    found["refused"] = Message("refused", STUDY, "hub", content={"reason": "another version"})
    found["leave"] = Message("leave", STUDY, "north", content={"reason": "done"})
    state = {"position": {"epoch": 1, "lr": 1e-3}, "names": ["weight", None, True]}
    found["snapshot"] = Message("snapshot", STUDY, "hub", 1, 12, 40, tensors=tensors_of(Encoding(), 2), content=state)
    return found


def sealed(
    header: bytes, payload: bytes, *, mark: bytes = b"WEFT", version: int = 1, nothing: int = 0, longer: int = 0
) -> bytes:
    """A message of parts that fit or do not, with a digest that is right."""
    data = struct.pack("<4sHHI", mark, version, nothing, max(len(header) + longer, 0) % 2**32) + header + payload
    return data + hashlib.sha256(data).digest()


def parted(data: bytes) -> tuple[bytes, bytes]:
    """Header and payload of a good message."""
    length = int.from_bytes(data[8:HEAD], "little")
    return data[HEAD : HEAD + length], data[HEAD + length : -32]


def written(header: Any) -> bytes:
    """Any header as JSON."""
    return json.dumps(header, separators=(",", ":")).encode()


VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 7, 2**31, 2**53, 2**53 + 1, 2**63, 10**400, 0.0, 1.5, -0.0, 1e308,
    "", "a", "hub", "../../etc/passwd", "/etc/passwd", "C:\\windows", "..", ".", "-rf", "a" * 64, "a" * 300, "A" * 64,
    "north\n", "nörth", "\u202eevil", "\ud800", "\x00", "\x1b[2J", "north/../south", "f" * 65, "0" * 64,
    "sum", "gather", "median", "eval", "__import__('os').system('true')", "control", "scores validation",
    [], [[]], [[[]]], [None], [-1], [2**40], [[2**40, 2**40]], [[-1]], [[0, -1]], [[1] * 9], [[1.0]], [["1"]], [True],
    ["whole", True], ["whole", 1], ["fp16", False], ["fp8", False], ["bf16", True, 1],
    [["F32", 1]], [["F32", -1]], [["F32", 10**15]], [["F8_E4M3", 8]], [["C64", 8]], [["object", 1]],
    [0], [0, 0, 0], list(range(9)), [99], [[2**53]], [[2**26, 2**26]], [[0, 2**53, 2**53]],
    {}, {"a": 1}, {"reason": "\u0007"}, {"": {"": {"": []}}}, {"__class__": "os.system"}, {"n": 2**64}, {"x": "\udfff"},
]  # fmt: skip


def texts() -> dict[str, bytes]:
    """Headers that are no JSON, or bad JSON."""
    good = written({"kind": "leave"})
    return {
        "empty": b"", "spaces": b" " * 64, "no-json": b"WEFT", "null": b"null", "list": b"[]", "number": b"1",
        "nan": b'{"kind":NaN}', "infinity": b'{"kind":-Infinity}', "too-large-a-float": b'{"kind":1e999}',
        "many-digits": b'{"kind":' + b"9" * 6000 + b"}", "deep-lists": b'{"content":' + b"[" * 100_000,
        "deep-objects": b'{"a":' * 100_000, "balanced-depth": b"[" * 5000 + b"]" * 5000,
        "brackets-in-text": b'{"kind":"' + b"[" * 5000 + b'"}', "twice": b'{"kind":"ask","kind":"ask"}',
        "twice-within": b'{"content":{"a":1,"a":2}}', "utf-8": '{"kind":"äsk"}'.encode(),
        "utf-16": "{}".encode("utf-16"),
        "cut": good[:-1], "two": good + good, "unended-text": b'{"kind":"' + b"\\" * 999, "bom": b"\xef\xbb\xbf" + good,
        "comment": b"/* */" + good, "single-quotes": b"{'kind':'ask'}", "nulls": b"\0" * 32,
    }  # fmt: skip


def safetensors_heads(payload: bytes) -> dict[str, bytes]:
    """Payloads whose safetensors header is wrong."""
    length = int.from_bytes(payload[:8], "little")
    head, data = json.loads(payload[8 : 8 + length]), payload[8 + length :]

    def again(entries: Any, tail: bytes = data) -> bytes:
        text = written(entries)
        text += b" " * (length - len(text))
        return len(text).to_bytes(8, "little") + text + tail

    names = list(head)
    found = {
        "length-0": bytes(8) + payload[8:],
        "length-huge": b"\xff" * 8 + payload[8:],
        "length-more": (length + 8).to_bytes(8, "little") + payload[8:],
        "no-head": data,
        "no-entries": again({}),
        "metadata": again({"__metadata__": {"a": "b"}, **head}),
        "pickle": BOMB + payload,
        "only-pickle": BOMB,
    }
    for name in names[:2]:
        entry = head[name]
        start, end = entry["data_offsets"]
        for what, changed in {
            "negative": {"data_offsets": [-8, end]}, "overlap": {"data_offsets": [max(start - 4, 0), end - 4]},
            "overrun": {"data_offsets": [start, end + 2**40]}, "backwards": {"data_offsets": [end, start]},
            "huge-shape": {"shape": [2**62]}, "negative-shape": {"shape": [-1]}, "other-dtype": {"dtype": "F8_E5M2"},
            "text": {"shape": "x"}, "nothing": {"dtype": None},
        }.items():  # fmt: skip
            found[f"{what}-{name}"] = again(head | {name: entry | changed})
        found[f"path-{name}"] = again({"../" + key if key == name else key: value for key, value in head.items()})
        found[f"missing-{name}"] = again({key: value for key, value in head.items() if key != name})
    return found


def enumerated(message: Message) -> Iterator[tuple[str, bytes]]:
    """Each mutation once: every field with every value, every boundary cut, every part changed. Digests are right."""
    data = encode(message)
    text, payload = parted(data)
    header = json.loads(text)
    for key in header:
        for number, value in enumerate(VALUES):
            if type(value) is not type(header[key]) or value != header[key]:
                yield f"{key}={number}", sealed(written(header | {key: value}), payload)
        yield f"without {key}", sealed(written({k: v for k, v in header.items() if k != key}), payload)
        yield (
            f"other name of {key}",
            sealed(written({k.upper() if k == key else k: v for k, v in header.items()}), payload),
        )
        yield f"{key} twice", sealed(text.rstrip()[:-1] + b"," + written({key: header[key]})[1:], payload)
    yield "one field more", sealed(written(header | {"extra": 1}), payload)
    for name, bad in texts().items():
        yield f"header {name}", sealed(bad, payload)
    for name, bad in safetensors_heads(payload).items():
        yield f"payload {name}", sealed(text, bad)
    for version in (0, 2, 255, 65535):
        yield f"format {version}", sealed(text, payload, version=version)
    yield "reserved", sealed(text, payload, nothing=1)
    yield "other mark", sealed(text, payload, mark=b"PK\x03\x04")
    for longer in (-len(text), -1, 1, 8, len(payload), len(payload) + 1, 2**31):
        yield f"header longer by {longer}", sealed(text, payload, longer=longer)
    begin = HEAD + len(text)
    inner = begin + 8 + int.from_bytes(payload[:8], "little")  # where the numbers begin
    ends = [0, 4, 8, HEAD, begin, begin + 8, inner, len(data) - 32, len(data)]
    for place in sorted({place + more for place in ends for more in (-1, 0, 1) if 0 <= place + more < len(data)}):
        yield f"cut at {place}", data[:place]
        yield f"cut at {place}, digest right", data[:place] + hashlib.sha256(data[:place]).digest()
    for tail in (b"\0", b"\0" * 8, data, b"x" * 999):
        yield f"{len(tail)} bytes more", data + tail
        yield f"{len(tail)} bytes more within", sealed(text, payload + tail)


def mutated(message: Message, generator: random.Random) -> tuple[str, bytes]:
    """A mutation by chance; the digest is right or not."""
    data = encode(message)
    text, payload = parted(data)
    way = generator.choice(["flips", "flips, digest right", "cut", "header bytes", "fields", "header text", "moved"])
    if way == "cut":
        place = generator.randrange(len(data))
        return way, data[:place] if generator.random() < 0.5 else sealed(
            text, payload[: max(place - HEAD - len(text), 0)]
        )
    if way == "fields":
        header = json.loads(text)
        for key in generator.sample(sorted(header), generator.randint(1, 4)):
            header[key] = _nearby(header[key], generator)
        return way, sealed(written(header), payload)
    if way in ("header bytes", "header text"):
        return way, sealed(_scrambled(text, generator, printable=way == "header text"), payload)
    if way == "moved":
        start, end = sorted(generator.choices(range(len(data) - 32), k=2))
        body = data[:start] + data[end:-32] + data[start:end]
        return way, body + hashlib.sha256(body).digest()
    changed = _scrambled(data, generator)
    return way, changed if way == "flips" else changed[:-32] + hashlib.sha256(changed[:-32]).digest()


def _scrambled(data: bytes, generator: random.Random, *, printable: bool = False) -> bytes:
    found = bytearray(data)
    for _ in range(generator.randint(1, 6)):
        place = generator.randrange(len(found))
        flipped = found[place] ^ (1 << generator.randrange(8))
        found[place] = ord(generator.choice('0123456789-.,:"[]{}eE\\u')) if printable else flipped
    return bytes(found)


def _nearby(value: Any, generator: random.Random) -> Any:
    """Another value of the same type where there is one near, or any."""
    if generator.random() < 0.3:
        return generator.choice(VALUES)
    if type(value) is bool:
        return not value
    if type(value) is int:
        return value + generator.choice([-1, 1, 2, -value, 1000, -(2**31), 2**31])
    if isinstance(value, str):
        return generator.choice(
            [value + "x", value[1:], value.upper(), value.replace(" ", "  "), value[::-1], value * 20]
        )
    if isinstance(value, list) and value:
        place = generator.randrange(len(value))
        other = _nearby(value[place], generator)
        return generator.choice(
            [
                [*value[:place], other, *value[place + 1 :]],
                value[:place] + value[place + 1 :],
                [*value, other],
                value[::-1],
            ]
        )
    return generator.choice(VALUES)


def corpus() -> dict[str, bytes]:
    """The worst, by file name; those that begin with "good" are as they should be."""
    found = {}
    for name in ("sum-whole", "sum-fp16-sparse", "answer", "hello", "refused", "leave"):
        found[f"good-{name}"] = encode(examples()[name])
    text, payload = parted(encode(examples()["sum-bf16-sparse"]))
    header = json.loads(text)
    for name, bad in texts().items():
        if len(bad) < 10_000:
            found[f"header-{name}"] = sealed(bad, payload)
    for name, bad in safetensors_heads(payload).items():
        found[f"payload-{name}"] = sealed(text, bad)
    for name, changed in {
        "huge-shape": {"shapes": [[2**53, 2**53], *header["shapes"][1:]]},
        "negative-shape": {"shapes": [[-6, -8], *header["shapes"][1:]]},
        "true-shape": {"shapes": [[True, 48], *header["shapes"][1:]]},
        "empty-with-huge-strides": {"shapes": [*header["shapes"][:4], [0, 2**53, 2**53], *header["shapes"][5:]]},
        "nine-dimensions": {"shapes": [[6, 8, 1, 1, 1, 1, 1, 1, 1], *header["shapes"][1:]]},
        "not-a-number": {"content": {"loss": float("nan")}},
        "large-whole-number": {"content": {"seed": 2**64}},
        "deep": {"content": json.loads('{"a":' * 40 + "1" + "}" * 40)},
        "run-of-dtypes": {"dtypes": [["F32", 10**15]]},
        "unknown-dtype": {"dtypes": [["C128", 5], ["F64", 1], ["BOOL", 1], ["I64", 1]]},
        "path-as-sender": {"sender": "../../north"},
        "newline-in-sender": {"sender": "north\n"},
        "path-as-study": {"study": "../" + STUDY[:32]},
        "terminal-in-content": {"content": {"reason": "\x1b]0;title\x07"}},
        "surrogate-in-content": {"content": {"reason": "\ud800"}},
        "unknown-kind": {"kind": "execute"},
        "unknown-operation": {"operation": "eval"},
        "operation-of-hello": {"kind": "hello"},
        "negative-step": {"step": -1},
        "true-epoch": {"epoch": True},
        "fraction-of-number": {"number": 40.0},
        "one-field-more": {"pickle": "gASVBQAAAAAAAABLAS4="},
        "more-nonzeros-than-numbers": {"nonzero": [10**9, *header["nonzero"][1:]]},
        "kept-twice-and-outside": {"kept": [0, 0, 99]},
    }.items():
        found[f"field-{name}"] = sealed(written(header | changed), payload)
    for name, more in {"twice": b'"kind":"ask"', "infinite": b'"content":{"loss":1e999}'}.items():
        cut = text.replace(b'"content":{},', b"") if name == "infinite" else text
        found[f"field-{name}"] = sealed(cut.rstrip()[:-1] + b"," + more + b"}", payload)
    size = int.from_bytes(payload[:8], "little")
    places = json.loads(payload[8 : 8 + size])["places"]["data_offsets"][0] + 8 + size
    for name, place in {"before": -1, "behind": 10**6, "unordered": 47}.items():
        other = payload[:places] + struct.pack("<i", place) + payload[places + 4 :]
        found[f"numbers-place-{name}"] = sealed(text, other)
    text, payload = parted(encode(examples()["sum-fp16"]))
    found["numbers-exponent"] = sealed(text, payload[:-3] + b"\x7f" + payload[-2:])
    found["numbers-truth"] = sealed(text, payload[:-1] + b"\x02")
    found["reserved"] = sealed(text, payload, nothing=1)
    found["format-2"] = sealed(text, payload, version=2)
    found["zip"] = b"PK\x03\x04" + bytes(96)
    found["pickle"] = BOMB + bytes(96)
    found["empty"] = b""
    return {f"{name}.bin": data for name, data in found.items()}


if __name__ == "__main__":
    CORPUS.mkdir(exist_ok=True)
    for old in CORPUS.glob("*.bin"):
        old.unlink()
    for name, data in corpus().items():
        (CORPUS / name).write_bytes(data)
