"""Tiny inputs that tests share: an encoder checkpoint made on the spot, and labelled texts."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_NOISE = [f"word{number}" for number in range(24)]
_MARKERS = 4

# Special tokens by family, in the order of their ids; RoBERTa pads with 1, the others with 0.
_SPECIALS = {
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "distilbert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
}
_ROLES = {
    "[PAD]": "pad_token",
    "<pad>": "pad_token",
    "[UNK]": "unk_token",
    "<unk>": "unk_token",
    "[CLS]": "cls_token",
    "<s>": "cls_token",
    "[SEP]": "sep_token",
    "</s>": "sep_token",
    "[MASK]": "mask_token",
    "<mask>": "mask_token",
}


def tiny_texts(n: int, classes: int = 3, seed: int = 0) -> tuple[list[str], list[str]]:
    """Make ``n`` texts and their labels: noise words around one or two words of the class.

    Classes take turns, so every prefix is balanced. A bag of words can learn it perfectly.
    """
    stream = random.Random(seed)
    texts, labels = [], []
    for row in range(n):
        label = row % classes
        words = stream.choices(_NOISE, k=stream.randint(2, 9))
        for _ in range(stream.randint(1, 2)):
            marker = f"class{label}{'abcdefgh'[stream.randrange(_MARKERS)]}"
            words.insert(stream.randint(0, len(words)), marker)
        texts.append(" ".join(words))
        labels.append(f"label{label}")
    return texts, labels


def tiny_vocabulary(classes: int = 8) -> list[str]:
    """List the words of ``tiny_texts`` and single letters and digits, whole and as pieces."""
    markers = [f"class{label}{'abcdefgh'[m]}" for label in range(classes) for m in range(_MARKERS)]
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789")
    return [*_NOISE, *markers, *letters, *(f"##{letter}" for letter in letters)]


def tiny_encoder(
    folder: Path,
    vocab: Sequence[str] | None = None,
    layers: int = 2,
    hidden: int = 32,
    kind: str = "bert",
    seed: int = 0,
) -> Path:
    """Save a random encoder with a WordPiece tokenizer and return its folder.

    Args:
        folder: Where to save; created.
        vocab: Pieces besides the special tokens; those of ``tiny_texts`` by default.
        layers: Encoder layers.
        hidden: Width; a multiple of 4.
        kind: ``bert``, ``roberta`` or ``distilbert``.
        seed: Of the weights.
    """
    import torch
    import transformers

    pieces = [*_SPECIALS[kind], *(tiny_vocabulary() if vocab is None else vocab)]
    config = _tiny_config(kind, len(pieces), layers, hidden)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        automatic: Any = transformers.AutoModel
        model = automatic.from_config(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.to_json_file(folder / "config.json")
    _save_weights(model, folder)
    _save_tokenizer(pieces, kind, folder)
    return folder


def _tiny_config(kind: str, vocab_size: int, layers: int, hidden: int) -> Any:
    import transformers

    if kind == "distilbert":
        return transformers.DistilBertConfig(
            vocab_size=vocab_size,
            dim=hidden,
            n_layers=layers,
            n_heads=4,
            hidden_dim=2 * hidden,
            max_position_embeddings=64,
        )
    family: Any = {"bert": transformers.BertConfig, "roberta": transformers.RobertaConfig}[kind]
    special = {"pad_token_id": _SPECIALS[kind].index("<pad>" if kind == "roberta" else "[PAD]")}
    return family(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=66 if kind == "roberta" else 64,
        type_vocab_size=2,
        **special,
    )


def _save_weights(model: Any, folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})


def _save_tokenizer(pieces: list[str], kind: str, folder: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    specials = _SPECIALS[kind]
    roles = {_ROLES[name]: name for name in specials}
    numbers = {piece: number for number, piece in enumerate(pieces)}
    tokenizer: Any = Tokenizer(models.WordPiece(vocab=numbers, unk_token=roles["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(specials))
    first, last = roles["cls_token"], roles["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(first, numbers[first]), (last, numbers[last])],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    declared = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(declared), encoding="utf-8")
