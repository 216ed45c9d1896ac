"""Classify texts: python predict.py "one text" "another". Needs numpy, onnxruntime, tokenizers."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import tokenizers


class Student:
    """The exported student of a folder; texts that are alike in length make faster batches."""

    def __init__(self, folder: Path, graph: str = "model.int8.onnx", threads: int = 0) -> None:
        self.config = json.loads((folder / "config.json").read_text("utf-8"))
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # 0: one for each core
        cpu = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(folder / graph, options, providers=cpu)

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return token ids; a text without any token is one unknown token."""
        unknown = [self.config["unk_token_id"]]
        return [row.ids or unknown for row in self.tokenizer.encode_batch_fast(texts)]

    def logits(self, rows: list[list[int]]) -> np.ndarray:
        """Return logits, one row for each text and one column for each label."""
        mask = np.arange(max(map(len, rows))) < np.array([[len(row)] for row in rows])
        ids = np.full(mask.shape, self.config["pad_token_id"], np.int64)
        ids[mask] = np.concatenate(rows)
        feed = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        return np.asarray(self.session.run(["logits"], feed)[0])

    def answer(self, logits: np.ndarray) -> list[tuple[str, float]]:
        """Return the likeliest label and its probability for each row of logits."""
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        best = logits.argmax(axis=1)
        shares = odds.max(axis=1) / odds.sum(axis=1)
        labels = self.config["labels"]
        return [(labels[i], float(share)) for i, share in zip(best, shares, strict=True)]


if __name__ == "__main__":
    student = Student(Path(__file__).parent)
    answers = student.answer(student.logits(student.encode(sys.argv[1:])))
    for text, (label, share) in zip(sys.argv[1:], answers, strict=True):
        print(f"{label}\t{share:.3f}\t{text}")  # noqa: T201
