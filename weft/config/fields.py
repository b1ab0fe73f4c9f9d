"""The base class of all sections of an experiment, and field types that several of them share."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

Value = TypeVar("Value")


class Section(BaseModel):
    """A part of the experiment: unknown keys are errors, text is not read as a number, nothing can be reassigned.

    What a field means stands as text below it; see `meanings`.
    """

    model_config = ConfigDict(
        defer_build=True,  # the first file that is read pays for it, not every import
        extra="forbid",
        frozen=True,
        strict=True,
        validate_default=False,
        validate_by_name=True,
        validate_by_alias=True,
        protected_namespaces=(),
        arbitrary_types_allowed=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler(schema)
        properties = handler.resolve_ref_schema(made)["properties"]
        for name, text in meanings(cls).items():
            properties[cls.model_fields[name].alias or name]["description"] = text
        return made


@cache
def meanings(section: type[Section]) -> dict[str, str]:
    """What the fields of a section mean, by name: read from the source when it is asked for, which importing is not."""
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    except OSError:  # installed without its source: hints and the schema do without
        return {}
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


# Python users may write tuples for lists and text for paths; the items stay strict.
Items = Annotated[list[Value], Field(strict=False)]
FilePath = Annotated[Path, Field(strict=False)]

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _auto_or_number(minimum: int) -> PlainValidator:
    """Accepts "auto" and whole numbers from `minimum` on."""

    def check(value: Any) -> Any:
        if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= minimum):
            return value
        text = "expected 'auto' or a whole number from {minimum}, found {found}"
        raise PydanticCustomError("auto_or_count", text, {"minimum": minimum, "found": repr(value)})

    return PlainValidator(check)


AutoOrCount = Annotated[
    int | Literal["auto"],
    _auto_or_number(0),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 0}]}),
]
AutoOrSize = Annotated[
    int | Literal["auto"],
    _auto_or_number(1),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]}),
]
