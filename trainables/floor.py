"""The TF-IDF floor: what a linear model on word or character n-grams reaches in seconds.

A teacher below it deserves a warning; a student below it is not worth shipping.

Legend: N rows, C classes, F features.
"""

from __future__ import annotations

import re
import time
import warnings

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier

from trainables.data._rows import Ints
from trainables.dataset import PreparedData, SplitTable, load_split, load_test
from trainables.errors import ArtifactMissing, DataError
from trainables.metrics import confusion_matrix, f1_scores
from trainables.store import Store, content_key

VERSION = 1
MOST_FEATURES = 200_000
MOST_COEFFICIENTS = 20_000_000
MOST_CHARACTERS = 5_000
INSPECTED_ROWS = 1_000

# Averaged stochastic gradient descent on the logistic loss: on headlines, questions, reviews and
# newsgroups it scored within a point of the exact solvers in a tenth of their time.
EPOCHS = 15
FEWEST_EPOCHS = 3
MOST_UPDATES = 2_500_000_000
"""Updates (non-zeros x classes x epochs) that take about half a minute on one core."""

# Scripts written without spaces between words.
_UNSPACED = re.compile(
    r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def tfidf_floor(store: Store, prepared: PreparedData) -> dict[str, float]:
    """Return what the linear model reaches on dev, trained on the labelled training rows.

    Args:
        store: Where the result is kept, as kind ``floor``.
        prepared: The data.

    Returns:
        ``accuracy``, ``f1_macro``, ``seconds``, and the ``rows`` and ``features`` it was fitted
        with.
    """
    key = content_key({"floor": VERSION, "data": prepared.key})
    known = _known(store, key)
    if known is not None:
        return known
    return _measure(store, key, prepared, load_split(store, prepared.key, "dev"))


def tfidf_floor_test(store: Store, prepared: PreparedData) -> dict[str, float]:
    """As ``tfidf_floor``, on the test split; for the confirm stage only.

    Raises:
        DataError: The data has no test split.
    """
    if prepared.test_key is None:
        raise DataError("there is no test split to measure the floor on; set data.test")
    key = content_key({"floor": VERSION, "data": prepared.key, "testset": prepared.test_key})
    known = _known(store, key)
    if known is not None:
        return known
    return _measure(store, key, prepared, load_test(store, prepared.test_key))


def _known(store: Store, key: str) -> dict[str, float] | None:
    try:
        return dict(store.read("floor", key).meta)
    except ArtifactMissing:
        return None


def _measure(
    store: Store, key: str, prepared: PreparedData, held_out: SplitTable
) -> dict[str, float]:
    started = time.perf_counter()
    train = load_split(store, prepared.key, "train")
    n_classes = len(prepared.classes)
    predictions, rows, features = fit_predict(train, held_out.texts, n_classes)
    targets = torch.from_numpy(held_out.labels)
    confusion = confusion_matrix(torch.from_numpy(predictions), targets, n_classes)
    result = {
        "accuracy": float((predictions == held_out.labels).mean()),
        "f1_macro": f1_scores(confusion)["f1_macro"],
        "seconds": time.perf_counter() - started,
        "rows": float(rows),
        "features": float(features),
    }
    with store.write("floor", key) as draft:
        draft.meta |= result
    return result


def fit_predict(train: SplitTable, texts: list[str], n_classes: int) -> tuple[Ints, int, int]:
    """Fit on ``train`` and predict ``texts``; work and memory are bounded.

    Returns:
        Class ids ``[N]``, the training rows used, and F.
    """
    vectorizer = _vectorizer(train.texts, n_classes)
    inputs = vectorizer.fit_transform([text[:MOST_CHARACTERS] for text in train.texts])
    rows, epochs = _affordable(inputs, n_classes)
    model = SGDClassifier(
        loss="log_loss", alpha=1e-5, max_iter=epochs, tol=1e-4, average=True, random_state=0
    )
    with warnings.catch_warnings():
        # The number of epochs is a budget, not a criterion of convergence.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # The training split comes shuffled, so its first rows are a sample.
        model.fit(inputs[:rows], train.labels[:rows])
    held_out = vectorizer.transform([text[:MOST_CHARACTERS] for text in texts])
    predictions: Ints = model.predict(held_out).astype(np.int64)
    return predictions, rows, inputs.shape[1]


def _vectorizer(texts: list[str], n_classes: int) -> TfidfVectorizer:
    inspected = texts[:INSPECTED_ROWS]
    unspaced = sum(_UNSPACED.search(text) is not None for text in inspected) > len(inspected) / 4
    shape = (
        {"analyzer": "char", "ngram_range": (1, 3)}
        if unspaced
        # Every visible character belongs to some token, so the vocabulary is never empty.
        else {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"\w+|[^\w\s]"}
    )
    return TfidfVectorizer(
        sublinear_tf=True,
        max_features=min(MOST_FEATURES, max(1000, MOST_COEFFICIENTS // n_classes)),
        dtype=np.float32,
        **shape,
    )


def _affordable(inputs: csr_matrix, n_classes: int) -> tuple[int, int]:
    """Return rows and epochs within the budget of updates."""
    per_epoch = max(1, inputs.nnz * (n_classes if n_classes > 2 else 1))
    epochs = int(np.clip(MOST_UPDATES // per_epoch, FEWEST_EPOCHS, EPOCHS))
    share = min(1.0, MOST_UPDATES / (per_epoch * epochs))
    return max(1, int(inputs.shape[0] * share)), epochs
