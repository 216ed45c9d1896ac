"""Models as files: a folder that can be loaded again without anything else.

``architecture.json`` names the component and its parameters, ``model.safetensors`` holds the
weights, and models around a pretrained encoder add the encoder's ``config.json``: the original
checkpoint is not needed any more.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model as load_weights
from safetensors.torch import save_model as save_weights
from torch import nn

from trainables import catalog
from trainables.errors import DataError

ARCHITECTURE = "architecture.json"
WEIGHTS = "model.safetensors"

# Not part of an architecture: values that the weights hold, and where they first came from.
_SOURCES = frozenset({"embedding", "checkpoint", "pretrained"})


def architecture(model: nn.Module) -> dict[str, Any]:
    """Describe how to build ``model`` again: ``{"name": ..., "params": {...}}``, JSON only.

    Raises:
        TypeError: The class does not keep a constructor parameter as an attribute.
    """
    kind = type(model)
    params = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in _SOURCES or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(model, name):
            raise TypeError(
                f"{kind.__qualname__} must keep its parameter {name!r} as an attribute, "
                "or a saved model could not be built again"
            )
        params[name] = getattr(model, name)
    return {"name": _component_name(kind), "params": params}


def save_model(model: nn.Module, folder: Path) -> None:
    """Write ``model`` into ``folder``, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(architecture(model), indent=1, sort_keys=True)
    (folder / ARCHITECTURE).write_text(text, encoding="utf-8")
    save_weights(model, str(folder / WEIGHTS))
    if model.needs_checkpoint:
        encoder: Any = model.encoder
        encoder.config.to_json_file(folder / "config.json")


def load_model(folder: Path) -> nn.Module:
    """Load what ``save_model`` wrote, on the CPU and in evaluation mode.

    Loading takes nothing from the global random stream.

    Raises:
        DataError: The folder does not hold a complete model, or one of another architecture.
        ComponentError: Its component is unknown here.
    """
    try:
        described = json.loads((folder / ARCHITECTURE).read_text(encoding="utf-8"))
        name, params = described["name"], dict(described["params"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} holds no model ({error}); it needs {ARCHITECTURE} and {WEIGHTS} as written "
            "by this project, or delete it and train again"
        ) from error
    if catalog.load("models", name).needs_checkpoint:
        params |= {"checkpoint": str(folder), "pretrained": False}
    with torch.random.fork_rng(devices=[]):
        # Built frozen, a table needs values at once; the weights bring them.
        frozen = params.pop("freeze_embedding", False)
        model: nn.Module = catalog.build("models", name, **params)
    try:
        load_weights(model, folder / WEIGHTS)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"the weights in {folder / WEIGHTS} do not fit its {ARCHITECTURE}: {error}; "
            "delete the folder and train again"
        ) from error
    if frozen:
        model.freeze_embedding = frozen
        model.table.requires_grad_(False)
    return model.eval()


def _component_name(kind: type[Any]) -> str:
    package, _, stem = kind.__module__.rpartition(".")
    if package == "trainables.models":
        return stem
    return f"{kind.__module__}:{kind.__qualname__}"
