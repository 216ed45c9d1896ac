"""Distillation from a teacher that knows superclasses only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from trainables.losses._check import number, one_of
from trainables.losses._math import kl_divergence, log_probabilities, pick, upcast
from trainables.protocols import Loss

# The log of a probability of zero; finite, so that 0 * log 0 stays 0.
_IMPOSSIBLE = -1e9


class Superclass(Loss):
    """KD from a teacher of superclasses to a student of classes.

    Letters: ``C`` classes, ``S`` superclasses. ``"marginal"`` sums the student's probabilities
    within each superclass at temperature 1, tempers both sides and takes ``T^2 KL``; tempering
    before summing would favour large superclasses. ``"lifted"`` spreads each superclass
    probability of the tempered teacher over its classes and takes ``T^2 KL`` over ``C`` classes.
    ``"label"`` looks at no teacher: the negative log-probability of the label's superclass, the
    control that tells what the hierarchy alone is worth.

    Args:
        groups: Superclass index of each class, covering 0..S-1; None: every class is its own,
            which is plain KD.
        temperature: Softmax temperature of both sides; above 0.
        variant: ``"marginal"``, ``"lifted"`` or ``"label"``.
        within: How ``"lifted"`` spreads: ``"student"`` like the student does at the moment (no
            gradient), ``"prior"`` by class frequencies, ``"label"`` all on the label within its
            own superclass and like the student elsewhere.
        prior: Frequency of each class, above 0; needed by ``within="prior"``. A sweep fills in
            the rows of each class in train.

    Source: our reading of Yu and Kim, JKSCI 27(10) 2022, doi 10.9708/jksci.2022.27.10.029.
    """

    supports_stacked = True

    def __init__(
        self,
        *,
        groups: Sequence[int] | None = None,
        temperature: float = 4.0,
        variant: Literal["marginal", "lifted", "label"] = "marginal",
        within: Literal["student", "prior", "label"] = "student",
        prior: Sequence[float] | None = None,
    ) -> None:
        self.temperature = number("temperature", temperature, above=0)
        one_of("variant", variant, ("marginal", "lifted", "label"))
        one_of("within", within, ("student", "prior", "label"))
        self._groups = _checked_groups(groups)
        self._superclasses = max(groups) + 1 if groups is not None else 0
        if within == "prior":
            classes = len(groups) if groups is not None else None
            self._log_prior = _checked_prior(prior, classes)
        self.variant = variant
        self.within = within
        self.needs_labels = variant == "label" or (variant == "lifted" and within == "label")

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss ``[B]`` of student ``[B, C]`` and teacher ``[B, S]`` logits.

        Raises:
            ValueError: ``groups`` does not fit the number of classes or superclasses.
        """
        superclasses = teacher_logits.shape[-1]
        groups = self._fitting(student_logits.shape[-1], superclasses).to(student_logits.device)
        if self.variant == "label":
            return -pick(_marginal(student_logits, groups, superclasses), groups[targets])
        teacher = log_probabilities(teacher_logits.detach(), self.temperature)
        if self.variant == "marginal":
            marginal = _marginal(student_logits, groups, superclasses)
            student = log_probabilities(marginal, self.temperature)
            return kl_divergence(teacher, student) * self.temperature**2
        student = log_probabilities(student_logits, self.temperature)
        conditional = self._conditional(student.detach(), groups, superclasses)
        spread = self._spread(conditional, groups, targets)
        lifted = teacher[..., groups] + spread  # [B, C]
        return kl_divergence(lifted, student) * self.temperature**2

    def teacher_view(self, student_logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the student's superclass log-probabilities ``[B, S]`` and superclass labels."""
        if self._groups is None:
            return student_logits, targets
        groups = self._groups.to(targets.device)
        labels = torch.where(targets >= 0, groups[targets.clamp(min=0)], targets)
        return _marginal(student_logits, groups, self._superclasses), labels

    def _fitting(self, classes: int, superclasses: int) -> Tensor:
        groups = self._groups if self._groups is not None else torch.arange(classes)
        known = self._superclasses if self._groups is not None else classes
        if len(groups) != classes or known != superclasses:
            raise ValueError(
                f"groups maps {len(groups)} classes to {known} superclasses, but "
                f"the student has {classes} classes and the teacher {superclasses} superclasses"
            )
        return groups

    def _conditional(self, student: Tensor, groups: Tensor, superclasses: int) -> Tensor:
        """Return log-probabilities within each superclass ``[B, C]``, prior's or student's."""
        source = student
        if self.within == "prior":
            source = self._log_prior.to(student).expand_as(student)
        return source - _marginal(source, groups, superclasses)[..., groups]

    def _spread(self, conditional: Tensor, groups: Tensor, targets: Tensor) -> Tensor:
        """Return ``log r(c | g(c))`` ``[B, C]``, all on the label in its superclass if wanted."""
        if self.within != "label":
            return conditional
        own = groups == groups[targets].unsqueeze(-1)
        label = torch.arange(len(groups), device=groups.device) == targets.unsqueeze(-1)
        certain = torch.where(label, 0.0, _IMPOSSIBLE).to(conditional.dtype)
        return torch.where(own, certain, conditional)


def _marginal(logits: Tensor, groups: Tensor, superclasses: int) -> Tensor:
    """Return the log-probabilities ``[B, S]`` of the superclasses, from logits ``[B, C]``."""
    log_p = log_probabilities(logits)
    members = groups == torch.arange(superclasses, device=groups.device).unsqueeze(-1)
    masked = log_p.unsqueeze(-2).masked_fill(~members, _IMPOSSIBLE)  # [B, S, C]
    return torch.logsumexp(masked, dim=-1)


def _checked_groups(groups: Sequence[int] | None) -> Tensor | None:
    if groups is None:
        return None
    values = list(groups)
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    if not values or not whole or set(values) != set(range(max(values) + 1)):
        raise ValueError(
            f"groups must hold the superclass 0..S-1 of each class, each used, but got {groups=}"
        )
    return torch.tensor(values)


def _checked_prior(prior: Sequence[float] | None, classes: int | None) -> Tensor:
    if prior is None:
        raise ValueError("within='prior' needs prior, the frequency of each class, but got None")
    values = torch.tensor([number("prior", value, above=0) for value in prior], dtype=torch.float64)
    if classes is not None and len(values) != classes:
        raise ValueError(f"prior must hold one value per class ({classes}), but got {prior=}")
    return upcast(values).log()


COMPONENT = Superclass
