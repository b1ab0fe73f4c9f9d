"""The header of a message: what stands in it, and everything that is checked of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from weft.engine.collectives import Encoding
from weft.federated.rounding import may_be_sparse
from weft.federated.wire import DTYPES, Form, Wrong, form_of, runs_of

KINDS = ("hello", "welcome", "ask", "answer", "refused", "snapshot", "leave")
OPERATIONS = ("sum", "gather", "median", "trimmed_mean", "krum")
_NUMBERS = ("whole", "fp32", "bf16", "fp16")
_KEYS = frozenset(
    ("kind", "study", "sender", "epoch", "step", "number", "operation", "tag", "tolerated", "content",
     "encoding", "dtypes", "shapes", "kept", "nonzero")
)  # fmt: skip
_LARGEST = 2**53  # every reader of JSON holds whole numbers up to here
_DIMENSIONS = 8
_DEPTH = 32
_STUDY = re.compile(r"[0-9a-f]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")  # as weft.config.federation.SiteName
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .,:;/+()\[\]=-]{0,199}")
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
# What would steer a terminal, or cannot be written as UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def written(fields: dict[str, Any], encoding: Encoding, forms: Sequence[Form], longest: int) -> bytes:
    """A header.

    Args:
        fields: of the message, without encoding and tensors.
        encoding: how numbers are written.
        forms: of the tensors.
        longest: so many bytes at most.

    Raises:
        Wrong: a reader would refuse it.
    """
    _check(fields, encoding, len(forms))
    whole = [place for place, form in enumerate(forms) if _is_kept(form, encoding)]
    header = fields | {
        "encoding": [encoding.numbers, encoding.sparse],
        "dtypes": runs_of(forms),
        "shapes": [list(form.shape) for form in forms],
        "kept": whole,
        "nonzero": [form.nonzero for form in forms] if encoding.sparse else [],
    }
    try:
        _check_content(fields["content"])
        if fields["operation"] == "gather" and any(not form.shape for form in forms):
            raise Wrong("a single number cannot be gathered; give it a dimension")
        data = json.dumps(header, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (ValueError, TypeError, RecursionError) as error:
        raise Wrong(f"its content is not plain: {error}") from error
    if len(data) > longest - 16:
        raise Wrong(f"its header takes {len(data)} bytes, more than {longest - 16}")
    _check_depth(data)
    return data


def read(data: bytes, most: int, memory: int) -> tuple[dict[str, Any], Encoding, list[Form]]:
    """What `written` wrote.

    Args:
        data: the header, of a bounded length.
        most: so many tensors at most.
        memory: so many bytes at most that they take.

    Raises:
        Wrong: anything in it is not as it must be.
    """
    header = _parsed(data)
    if set(header) != _KEYS:
        raise Wrong("its header has other entries than a message")
    own = {name: header.pop(name) for name in ("encoding", "dtypes", "shapes", "kept", "nonzero")}
    encoding = _encoding(own["encoding"])
    shapes = own["shapes"]
    if not isinstance(shapes, list) or len(shapes) > most:
        raise Wrong(f"it has no list of shapes, or more than {most}")
    _check(header, encoding, len(shapes))
    _check_content(header["content"])
    if header["operation"] == "gather" and [] in shapes:
        raise Wrong("a single number cannot be gathered")
    dtypes = _dtypes(own["dtypes"], len(shapes))
    kept = set(_whole_numbers(own["kept"], "kept", len(shapes) - 1))
    nonzero = own["nonzero"]
    if not isinstance(nonzero, list) or len(nonzero) != (len(shapes) if encoding.sparse else 0):
        raise Wrong("it does not tell of each tensor how many numbers are not zero")
    forms, total = [], 0
    for place, (name, shape) in enumerate(zip(dtypes, shapes, strict=True)):
        form = _form(name, shape, encoding, place in kept, nonzero[place] if encoding.sparse else -1, memory)
        total += form.numbers * form.dtype.itemsize
        if total > memory:
            raise Wrong(f"its tensors take more than {memory} bytes")
        forms.append(form)
    return header, encoding, forms


def _parsed(data: bytes) -> dict[str, Any]:
    _check_depth(data)
    try:
        header = json.loads(
            data.decode("ascii"), object_pairs_hook=_no_key_twice, parse_constant=_refuse, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise Wrong("its header is no JSON") from error
    if not isinstance(header, dict):
        raise Wrong("its header is no JSON object")
    return header


def _check_depth(data: bytes) -> None:
    if data.count(b"[") + data.count(b"{") <= _DEPTH:
        return
    depth = 0
    for bracket in _BRACKET.finditer(_TEXT.sub(b"", data)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > _DEPTH:
            raise Wrong(f"its header is nested deeper than {_DEPTH}")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Wrong("an entry of its header occurs twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise Wrong(f"its header holds {constant}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Wrong("its header holds a number that is not finite")
    return number


def _check(fields: dict[str, Any], encoding: Encoding, tensors: int) -> None:
    """Types and ranges of the fields that say what a message is."""
    kind = fields["kind"]
    _one_of(kind, KINDS, "kind")
    _match(fields["study"], _STUDY, "study")
    _match(fields["sender"], _NAME, "sender")
    for name in ("epoch", "step", "number", "tolerated"):
        _whole_numbers([fields[name]], name, _LARGEST)
    if kind in ("ask", "answer"):
        _one_of(fields["operation"], OPERATIONS, "operation")
        _match(fields["tag"], _TAG, "tag")
    elif fields["operation"] != "" or fields["tolerated"] or encoding != Encoding():
        raise Wrong(f"a message '{kind}' has no operation, nor an encoding")
    elif fields["tag"] != "":
        _match(fields["tag"], _TAG, "tag")
    if tensors and kind in ("hello", "refused", "leave"):
        raise Wrong(f"a message '{kind}' has no tensors")
    if not isinstance(fields["content"], dict):
        raise Wrong("its content is no JSON object")


def _check_content(value: Any) -> None:
    """Texts that can be shown; keys are texts, so that what is read is what was written."""
    if isinstance(value, str):
        if _UNPRINTABLE.search(value):
            raise Wrong("a text in it holds characters that cannot be shown")
    elif isinstance(value, dict):
        for key, child in value.items():
            if not isinstance(key, str):
                raise Wrong(f"a key of its content is {key!r}, no text")
            _check_content(key)
            _check_content(child)
    elif isinstance(value, list):
        for child in value:
            _check_content(child)
    elif type(value) is int:
        if abs(value) >= 2**64:
            raise Wrong("a whole number in it takes more than 64 bits")
    elif value is not None and type(value) not in (bool, float):
        raise Wrong(f"its content holds a {type(value).__name__}")


def _one_of(value: Any, known: Sequence[str], name: str) -> None:
    if not isinstance(value, str) or value not in known:
        raise Wrong(f"its {name} is none of {', '.join(known)}")


def _match(value: Any, pattern: re.Pattern[str], name: str) -> None:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise Wrong(f"its {name} is not written as it must be")


def _whole_numbers(values: Any, name: str, largest: int) -> list[int]:
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value <= largest for value in values):
        raise Wrong(f"{name}: not a whole number from 0 to {largest}")
    return values


def _encoding(value: Any) -> Encoding:
    if not isinstance(value, list) or len(value) != 2 or type(value[1]) is not bool:
        raise Wrong("its encoding is not written as it must be")
    _one_of(value[0], _NUMBERS, "encoding")
    return Encoding(value[0], value[1])


def _dtypes(value: Any, count: int) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(run, list) and len(run) == 2 for run in value):
        raise Wrong("its dtypes are not written as they must be")
    for name, _ in value:
        _one_of(name, tuple(DTYPES), "dtype")
    if sum(_whole_numbers([number for _, number in value], "dtypes", count)) != count:
        raise Wrong("it tells dtypes of another number of tensors than shapes")
    return [name for name, number in value for _ in range(number)]


def _form(name: str, shape: Any, encoding: Encoding, kept: bool, nonzero: Any, memory: int) -> Form:
    if not isinstance(shape, list) or len(shape) > _DIMENSIONS:
        raise Wrong(f"a shape is no list of at most {_DIMENSIONS} sizes")
    dtype = DTYPES[name]
    # Sizes of 0 count as 1: the strides of an empty tensor must not overflow either.
    if math.prod(max(size, 1) for size in _whole_numbers(shape, "sizes", _LARGEST)) * dtype.itemsize > memory:
        raise Wrong(f"a tensor of shape {shape} takes more than {memory} bytes")
    form = form_of(dtype, tuple(shape), encoding, kept)
    if kept and not _is_kept(form, encoding):
        raise Wrong("a tensor is said to be kept whole that travels so anyhow")
    if nonzero == -1 and type(nonzero) is int:
        return form
    _whole_numbers([nonzero], "nonzero", form.numbers)
    if not may_be_sparse(dtype, form.numbers, encoding):
        raise Wrong("a tensor is sparse that travels whole")
    return Form(form.dtype, form.shape, form.sent, nonzero)


def _is_kept(form: Form, encoding: Encoding) -> bool:
    return form.sent != form_of(form.dtype, form.shape, encoding, kept=False).sent
