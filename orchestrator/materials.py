"""Materials: what a config needs before its first trial, as artifacts in the content store.

Data is read and divided, text is tokenised for every tokenizer, embeddings are made. All of it is
named by content, so that a second start finds everything there. After this, a trial is described
completely by keys and numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.exporting.adopt import Adopted
from orchestrator.exporting.seen import seen_sentence
from orchestrator.schema import SweepConfig, TeacherConfig, TokenizerConfig
from orchestrator.wants import anchors, needs_features
from trainables import catalog
from trainables.checkpoints import check_encoder, checkpoint_digest, resolve_checkpoint
from trainables.dataset import DataSpec, PreparedData, prepare
from trainables.embeddings import file_embedding, teacher_embedding
from trainables.encoded import ensure_encoded, ensure_encoded_test
from trainables.errors import DataError
from trainables.floor import tfidf_floor
from trainables.hierarchy import shuffled_groups
from trainables.loop import OptimizerSpec
from trainables.store import Artifact, Store
from trainables.teacher import TeacherSpec
from trainables.tokenization import TextTokenizer, TokenizerSpec, build_tokenizer

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Tokens:
    """How one model sees the data: its tokenizer and where the tokenised splits are.

    Attributes:
        tokenizer: Key of the tokenizer.
        vocab_size: Its number of entries.
        max_length: Tokens of each text.
        prefix: Put before each text.
        specials: Whether special tokens are added.
        encoded: Key of each tokenised split but test, which only ``confirm`` may ask for.
    """

    tokenizer: str
    vocab_size: int
    max_length: int
    prefix: str
    specials: bool
    encoded: Mapping[str, str]


@dataclass(frozen=True)
class TeacherMaterials:
    """A teacher that is ready to be trained.

    Attributes:
        config: As written.
        spec: Its training.
        tokens: Its view of the data.
        folds: The trainings that leave out one fold each; empty without folds.
    """

    config: TeacherConfig
    spec: TeacherSpec
    tokens: Tokens
    folds: tuple[TeacherSpec, ...] = ()


@dataclass(frozen=True)
class Materials:
    """Everything a sweep's trials refer to.

    Attributes:
        data: Facts about the data.
        teachers: In the order of the config.
        student: The student's view of the data.
        embedding: Key of the student's initial embedding, or None.
        floor: Dev metrics of the TF-IDF floor.
    """

    data: PreparedData
    teachers: tuple[TeacherMaterials, ...]
    student: Tokens
    embedding: str | None
    floor: Mapping[str, float]

    @property
    def splits(self) -> list[str]:
        """The splits whose teacher outputs students use."""
        return [split for split in ("train", "dev", "transfer") if self.data.rows.get(split)]


def prepare_data(config: SweepConfig, store: Store, tell: Tell) -> PreparedData:
    """Read, check and divide the data of a config.

    Raises:
        DataError: The data cannot be used; lists every problem.
    """
    return prepare(DataSpec.from_dict(config.data.model_dump()), store, progress=tell)


def prepare_materials(
    config: SweepConfig, data: PreparedData, store: Store, tell: Tell
) -> Materials:
    """Make, or find, everything the trials of a config refer to.

    Raises:
        DataError: A checkpoint or a file cannot be used.
    """
    checkpoints: dict[str, Path] = {}

    def checkpoint(name: str) -> Path:
        if name not in checkpoints:
            tell(f"opening checkpoint {name}")
            checkpoints[name] = resolve_checkpoint(name, store)
            check_encoder(checkpoints[name])
        return checkpoints[name]

    teachers = []
    for teacher in config.teachers:
        tell(f"tokenising for teacher {teacher.name}")
        teachers.append(_teacher(config, teacher, data, store, checkpoint, tell))
        if teacher.exported is not None:
            metrics = (store.meta("teacher", teachers[-1].spec.key) or {}).get("metrics", {})
            seen = seen_sentence(teacher.name, metrics, data.rows)
            if seen is not None:
                tell(f"warning: {seen}")
    tell("tokenising for the student")
    tokenizer = _student_tokenizer(config, config.student.tokenizer, data, store, checkpoint)
    length = config.student.max_length or config.data.max_length
    student = _tokens(data, store, tokenizer, length)
    embedding = _embedding(config, tokenizer, store, checkpoint, tell)
    tell("computing the TF-IDF floor")
    floor = prefixed(tfidf_floor(store, data), "val_")
    return Materials(data, tuple(teachers), student, embedding, floor)


def prefixed(floor: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Return the scores of the TF-IDF floor under the metric names of a split."""
    return {prefix + name: floor[name] for name in ("accuracy", "f1_macro")}


def encode_test(materials: Materials, tokens: Tokens, store: Store) -> str | None:
    """Tokenise the test split for one model; only the confirm stage calls this."""
    if materials.data.test_key is None:
        return None
    return ensure_encoded_test(
        store,
        materials.data.test_key,
        store.read("tokenizer", tokens.tokenizer),
        tokens.max_length,
        prefix=tokens.prefix,
        specials=tokens.specials,
    )


def _teacher(
    config: SweepConfig,
    teacher: TeacherConfig,
    data: PreparedData,
    store: Store,
    checkpoint: Callable[[str], Path],
    tell: Tell,
) -> TeacherMaterials:
    if teacher.exported is not None:
        return _adopted(teacher, teacher.exported, data, store, tell)
    model = dict(teacher.model)
    digest = ""
    pretrained = bool(catalog.load("models", model["name"]).needs_checkpoint)
    if pretrained:
        resolved = checkpoint(model["checkpoint"])
        model["checkpoint"], digest = str(resolved), checkpoint_digest(resolved)
        if teacher.layers is not None:
            model["layers"] = teacher.layers
        tokenizer = build_tokenizer(
            TokenizerSpec(kind="checkpoint", checkpoint=str(resolved)), data.key, store
        )
    else:
        settings = teacher.tokenizer or config.student.tokenizer
        tokenizer = _student_tokenizer(config, settings, data, store, checkpoint)
    tokens = _tokens(
        data, store, tokenizer, config.data.max_length, teacher.prefix, specials=pretrained
    )
    if not pretrained:
        model["vocab_size"] = tokens.vocab_size
    groups = _groups(config, teacher, data)
    route = anchors(config)
    spec = TeacherSpec(
        name=teacher.name,
        model=model,
        checkpoint_digest=digest,
        n_classes=len(data.classes) if groups is None else max(groups) + 1,
        train=tokens.encoded["train"],
        dev=tokens.encoded["dev"],
        rows=teacher.rows,
        epochs=teacher.epochs,
        batch_size=teacher.batch_size,
        optimizer=OptimizerSpec(
            lr=teacher.lr,
            weight_decay=teacher.weight_decay,
            warmup=teacher.warmup,
            max_grad_norm=teacher.max_grad_norm,
        ),
        freeze_layers=teacher.freeze_layers,
        precision=teacher.precision,
        seed=config.seed if teacher.seed is None else teacher.seed,
        groups=groups,
        anchors=route,
        anchor_splits=tokens.encoded if route else {},
        anchor_features=bool(route) and needs_features(config),
    )
    number = teacher.folds or 0
    if data.blocks is not None and number > data.blocks["train"]:
        raise DataError(
            f"teacher {teacher.name!r} has {number} folds, but the training rows belong to "
            f"{data.blocks['train']} groups of {config.data.group!r}; lower its folds"
        )
    folds = tuple(
        replace(spec, fold=(fold, number), anchors=(), anchor_splits={}, anchor_features=False)
        for fold in range(number)
    )
    return TeacherMaterials(teacher, spec, tokens, folds)


def _adopted(
    teacher: TeacherConfig, exported: str, data: PreparedData, store: Store, tell: Tell
) -> TeacherMaterials:
    """Return an exported student as a teacher, whose artifact is there already."""
    adopted = Adopted.open(teacher.name, Path(exported))
    unknown = adopted.unknown(data.classes)
    if unknown and len(unknown) < len(data.classes):
        tell(f"teacher {teacher.name} does not know {', '.join(unknown)}, and never says so")
    tokens = _tokens(data, store, adopted.tokenizer(store), adopted.max_length)
    return TeacherMaterials(teacher, adopted.teacher(store, data, tokens.encoded), tokens)


def _groups(
    config: SweepConfig, teacher: TeacherConfig, data: PreparedData
) -> tuple[int, ...] | None:
    """Return the superclass of each class as a teacher learns it, or None for classes."""
    if teacher.labels == "class":
        return None
    if data.groups is None:
        raise DataError(
            f"teacher {teacher.name!r} learns superclasses, but the data has none; set "
            "data.superclass to a column or a mapping"
        )
    if teacher.labels == "superclass":
        return data.groups
    return shuffled_groups(data.groups, config.seed)


def _tokens(
    data: PreparedData,
    store: Store,
    tokenizer: Artifact,
    max_length: int,
    prefix: str = "",
    *,
    specials: bool = False,
) -> Tokens:
    encoded = {
        split: ensure_encoded(
            store, data.key, split, tokenizer, max_length, prefix=prefix, specials=specials
        )
        for split in ("train", "dev", "transfer")
        if data.rows.get(split)
    }
    vocabulary = len(TextTokenizer.open(tokenizer.path).vocabulary)
    return Tokens(tokenizer.key, vocabulary, max_length, prefix, specials, encoded)


def _student_tokenizer(
    config: SweepConfig,
    settings: TokenizerConfig,
    data: PreparedData,
    store: Store,
    checkpoint: Callable[[str], Path],
) -> Artifact:
    values: dict[str, Any] = settings.model_dump()
    if settings.kind == "teacher":
        name = settings.checkpoint or _first_checkpoint(config)
        values["checkpoint"] = str(checkpoint(name))
    return build_tokenizer(TokenizerSpec(**values), data.key, store)


def _embedding(
    config: SweepConfig,
    tokenizer: Artifact,
    store: Store,
    checkpoint: Callable[[str], Path],
    tell: Tell,
) -> str | None:
    settings = config.student.embedding
    if settings.kind == "random":
        return None
    if settings.kind == "file":
        tell(f"reading embeddings from {settings.path}")
        path = Path(str(settings.path))
        return file_embedding(store, path, tokenizer, settings.dim, seed=config.seed).key
    dim = settings.dim or config.student.model.get("embedding_dim")
    name = _first_checkpoint(config, settings.teacher)
    tell(f"reducing the token table of {name}")
    return teacher_embedding(store, checkpoint(name), tokenizer, dim or _default_dim(config)).key


def _default_dim(config: SweepConfig) -> int:
    """Return the width of the student model's own embedding."""
    for parameter in catalog.parameters("models", config.student.model["name"]):
        if parameter.name == "embedding_dim" and isinstance(parameter.default, int):
            return parameter.default
    raise DataError(
        f"the student model {config.student.model['name']!r} has no embedding; "
        "set student.embedding.kind to random"
    )


def _first_checkpoint(config: SweepConfig, teacher: str | None = None) -> str:
    """Return the checkpoint of the named teacher, or of the first that has one."""
    for candidate in config.teachers:
        if "checkpoint" in candidate.model and teacher in (None, candidate.name):
            return str(candidate.model["checkpoint"])
    raise DataError(
        "the student's tokenizer or embedding comes from a teacher's checkpoint, but "
        + (f"teacher {teacher!r} has none" if teacher else "no teacher has one")
        + "; choose another kind or name a teacher with a checkpoint"
    )
