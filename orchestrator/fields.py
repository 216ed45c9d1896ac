"""The kinds of values a config may hold, each with a check whose words are ours."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError

from search_spaces.errors import SpaceError
from search_spaces.parsing import COMPONENT_KEYS
from search_spaces.space import Space

METRICS = {
    "val_f1_macro": "max",
    "val_f1_micro": "max",
    "val_f1_weighted": "max",
    "val_accuracy": "max",
    "val_loss": "min",
    "parameters": "min",
    "model_bytes": "min",
    "latency_ms": "min",
    "epoch_seconds": "min",
}
"""What a search may optimise, and which way is better."""

Precision = Literal["auto", "fp32", "bf16"]


def fault(what: str, cure: str = "", **context: Any) -> PydanticCustomError:
    """Return a validation error whose words are ours."""
    return PydanticCustomError("fault", "{what}", {"what": what, "cure": cure, **context})


def _component(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value:
        return {"name": value}
    if not isinstance(value, Mapping):
        raise fault(f"must be a name or a mapping with a name, got {value!r}", "write {name: ...}")
    if not isinstance(value.get("name"), str) or not value["name"]:
        raise fault("has no name", "add `name: ...`, followed by the parameters")
    return dict(value)


def _optional_component(value: Any) -> dict[str, Any] | None:
    return None if value is None else _component(value)


def _own_model(value: Any) -> dict[str, Any]:
    """Read the model of a teacher; empty for one that is an exported student."""
    return {} if value == {} else _component(value)


def _part(value: Any) -> float | int | str:
    if isinstance(value, float) and not 0 < value < 1:
        raise fault(
            f"a share of the rows lies between 0 and 1, got {value}",
            "write e.g. 0.1, or a whole number for that many rows",
        )
    if isinstance(value, bool) or not isinstance(value, (float, int, str)) or value == "":
        raise fault(
            f"must be a share, a number of rows or a file, got {value!r}",
            "write e.g. 0.1, 2000 or dev.csv",
        )
    if isinstance(value, int) and value < 1:
        raise fault(f"a number of rows is at least 1, got {value}")
    return value


def _optional_part(value: Any) -> float | int | str | None:
    return None if value is None else _part(value)


def _superclass(value: Any) -> str | dict[str, str] | None:
    if value is None or (isinstance(value, str) and value):
        return value
    if isinstance(value, Mapping) and value:
        return {str(name): str(group) for name, group in value.items()}
    raise fault(
        f"must be a column or a mapping from class to superclass, got {value!r}",
        "write the name of a column, or {class: superclass, ...}",
    )


def _objectives(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not value:
        raise fault("must name at least one metric", "write e.g. {val_f1_macro: max}")
    for name, direction in value.items():
        _check_objective(str(name), direction)
    return dict(value)


def _check_objective(name: str, direction: Any) -> None:
    close = difflib.get_close_matches(name.replace("test_", "val_"), METRICS, n=1, cutoff=0.5)
    instead = f"use {close[0]!r}" if close else f"use one of {', '.join(METRICS)}"
    if name.startswith("test_"):
        raise fault(f"{name!r} is a test metric, and a search never sees the test split", instead)
    if name not in METRICS:
        raise fault(f"unknown metric {name!r}", instead)
    if direction != METRICS[name]:
        raise fault(
            f"{name} must have the direction {METRICS[name]!r}, got {direction!r}",
            f"write {{{name}: {METRICS[name]}}}",
        )


def _space(value: Any) -> dict[str, Any]:
    try:
        return Space.parse({} if value is None else value).to_json()
    except SpaceError as error:
        raise fault("invalid", problems=list(error.problems)) from error


def _point(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise fault(
            f"must be a mapping from keys of the student to values, got {value!r}",
            "write e.g. {loss: dkd, alpha: 2.0}",
        )
    return {
        str(key): {"name": entry} if key in COMPONENT_KEYS and isinstance(entry, str) else entry
        for key, entry in value.items()
    }


def _uri(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.match(r"(https?://[^/]|sqlite:///.)", value):
        raise fault(
            f"must be http(s)://... or sqlite:///..., got {value!r}",
            "leave it null for a local SQLite file",
        )
    if re.match(r"[a-z]+://[^/]*@", value):
        raise fault(
            "holds a user name or password, which would end up in records",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead",
        )
    return value


def _environment_name(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and re.match(r"[A-Za-z_]\w*\Z", value)):
        return value
    raise fault(
        "must be the name of an environment variable, not the URL itself",
        "export LEDGER_URL=... and write LEDGER_URL here, so that no password is recorded",
    )


def _budget(value: Any) -> int | float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise fault(f"must be a number of trials or a share, got {value!r}", "write 5, 0.5 or null")
    if isinstance(value, float) and value > 1:
        raise fault(f"a share is at most 1.0, got {value}", "write a whole number for trials")
    return value


def _amount(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise fault(f"must be a number, got {value!r}")
    if value < 0 or (value > 1 and value != int(value)):
        raise fault(f"must be 0, a fraction below 1 or a whole number, got {value}")
    return float(value)


Component = Annotated[dict[str, Any], PlainValidator(_component)]
OptionalComponent = Annotated[dict[str, Any] | None, PlainValidator(_optional_component)]
OwnModel = Annotated[dict[str, Any], PlainValidator(_own_model)]
Part = Annotated[float | int | str, PlainValidator(_part)]
OptionalPart = Annotated[float | int | str | None, PlainValidator(_optional_part)]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, PlainValidator(_amount)]
Superclass = Annotated[str | dict[str, str] | None, PlainValidator(_superclass)]
Objectives = Annotated[dict[str, str], PlainValidator(_objectives)]
PointMapping = Annotated[dict[str, Any], PlainValidator(_point)]
SpaceMapping = Annotated[dict[str, Any], PlainValidator(_space)]
TrackingUri = Annotated[str | None, PlainValidator(_uri)]
EnvironmentName = Annotated[str | None, PlainValidator(_environment_name)]
Budget = Annotated[int | float | None, PlainValidator(_budget)]
