"""Everything the store knows about one student, opened for export.

Legend: V entries of the tokenizer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from torch import nn

from orchestrator.errors import OrchestratorError
from orchestrator.exporting.graph import student_numbers
from trainables.data._rows import Ints
from trainables.dataset import PreparedData, SplitTable, load_prepared, load_split
from trainables.encoded import Encoded
from trainables.errors import ArtifactMissing
from trainables.evaluation import open_encoded
from trainables.models._io import load_model
from trainables.store import Artifact, Store
from trainables.student_spec import StudentSpec
from trainables.tokenization import TOKENIZER_FILE, TextTokenizer


@dataclass(frozen=True)
class Source:
    """One trained student with its tokenizer and the dev split it was judged on.

    Attributes:
        artifact: The ``student`` artifact, or the ``joint`` one of a student whose teacher was
            trained with it.
        spec: What it was trained from.
        tokenizer: The ``tokenizer`` artifact.
        max_length: Tokens it reads of each text.
        specials: Whether the tokenizer adds its special tokens.
        data: Facts about the data.
        dev: The dev split as tokens.
        texts: The dev split as texts.
    """

    artifact: Artifact
    spec: StudentSpec
    tokenizer: Artifact
    max_length: int
    specials: bool
    data: PreparedData
    dev: Encoded
    texts: SplitTable

    @classmethod
    def open(cls, store: Store, key: str, kind: str = "student") -> Source:
        """Open the student ``key``; its tokenizer and data are found through its dev split.

        Args:
            store: The content store.
            key: Of the artifact.
            kind: Of the artifact, ``student`` or ``joint``.

        Raises:
            OrchestratorError: Something of it is no longer in the store.
        """
        try:
            artifact = store.read(kind, key)
            trained = artifact.meta["spec"]
            spec = StudentSpec.from_dict(trained["student"] if "scheme" in trained else trained)
            encoded = store.read("encoded", spec.dev)
            return cls(
                artifact=artifact,
                spec=spec,
                tokenizer=store.read("tokenizer", encoded.meta["tokenizer"]),
                max_length=int(encoded.meta["max_length"]),
                specials=bool(encoded.meta["specials"]),
                data=load_prepared(store, encoded.meta["data"]),
                dev=open_encoded(store, spec.dev),
                texts=load_split(store, encoded.meta["data"], "dev"),
            )
        except ArtifactMissing as error:
            raise OrchestratorError(
                f"the student cannot be exported: {error}; start the sweep again, "
                "which makes what is missing anew"
            ) from error

    def model(self) -> nn.Module:
        """Load the student on the CPU, in evaluation mode."""
        return load_model(self.artifact.file("model"))

    @cached_property
    def _text_tokenizer(self) -> TextTokenizer:
        return TextTokenizer.open(self.tokenizer.path)

    @cached_property
    def numbering(self) -> Ints | None:
        """Student id of each id of the tokenizer, int64 [V]; None if they are the same."""
        tokenizer = self._tokenizer_alone()
        size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        originals = self._text_tokenizer.original_ids
        if np.array_equal(originals, np.arange(size)):
            return None
        return student_numbers(originals, size, self._text_tokenizer.unk_id)

    def special_ids(self) -> dict[str, int]:
        """Return the padding and the unknown id in the numbers of the exported tokenizer."""
        opened = self._text_tokenizer
        originals = opened.original_ids
        return {
            "pad_token_id": int(originals[opened.pad_id]),
            "unk_token_id": int(originals[opened.unk_id]),
        }

    def write_tokenizer(self, folder: Path) -> None:
        """Write a tokenizer.json whose plain ``encode`` gives what the student was trained on."""
        tokenizer = self._tokenizer_alone()
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_length)
        described = json.loads(tokenizer.to_str())
        if not self.specials:
            # Else every caller would have to remember not to ask for [CLS] and [SEP].
            described["post_processor"] = None
        text = json.dumps(described, ensure_ascii=False, indent=1)
        (folder / TOKENIZER_FILE).write_text(text, encoding="utf-8")

    def _tokenizer_alone(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.tokenizer.file(TOKENIZER_FILE)))
