"""RL-KD: a policy learns which teachers each example should learn from."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from trainables.losses._check import number, one_of
from trainables.losses._math import kl_divergence, log_probabilities, pick, upcast
from trainables.protocols import Weighting
from trainables.weightings._guard import uniform
from trainables.weightings._policy import Baseline, Policy, Tally, observe, policy_loss


class _Decision(NamedTuple):
    """States ``[B, S]`` of the last batch, actions ``[B, K]`` and the weights ``[K, B]``."""

    state: Tensor
    actions: Tensor
    weights: Tensor


class Reinforced(Weighting):
    """A policy selects teachers per example and learns from the updated student (RL-KD).

    Each teacher is selected or not; the selected ones share the weight equally, and an empty
    selection falls back to all. The policy sees the sentence, the teachers' probabilities and
    their cross-entropies, and follows REINFORCE with a moving-average baseline. The reward of an
    example is taken after the student's step. The published objective is
    ``ce_weight = 1 - alpha``. A reward by dev accuracy is not offered: it would need a third
    split, disjoint from the one that the search decides on.

    Args:
        warmup: Share of the epochs, from the start, in which all teachers count equally; 0 to 1.
        reward: ``"ce_kd"``: minus cross-entropy minus the selected teachers' mean KD loss;
            ``"ce"``: minus cross-entropy alone.
        temperature: Softmax temperature of the KD loss in the reward; above 0.
        lr: Learning rate of the policy's Adam; above 0.
        entropy_bonus: Coefficient of the policy's entropy; at least 0.
        momentum: Of the baseline; at least 0, below 1.
        seed: Seed of the selections until the trainer sets the trial's.

    Source: our reading of Yuan et al. 2021, AAAI, arXiv 2012.06048; baseline, empty selection and
        hyper-parameters are our choices.
    """

    needs_labels = True
    needs_feedback = True
    needs_features = True
    selects = True

    def __init__(
        self,
        *,
        warmup: float = 0.2,
        reward: Literal["ce_kd", "ce"] = "ce_kd",
        temperature: float = 4.0,
        lr: float = 1e-3,
        entropy_bonus: float = 1e-3,
        momentum: float = 0.9,
        seed: int = 0,
    ) -> None:
        self.warmup = number("warmup", warmup, least=0)
        self.momentum = number("momentum", momentum, least=0)
        if warmup > 1 or momentum >= 1:
            raise ValueError(
                f"warmup must be <= 1 and momentum < 1, but got {warmup=}, {momentum=}"
            )
        one_of("reward", reward, ("ce_kd", "ce"))
        self.reward = reward
        self.temperature = number("temperature", temperature, above=0)
        self.lr = number("lr", lr, above=0)
        self.entropy_bonus = number("entropy_bonus", entropy_bonus, least=0)
        # Its own stream: selecting must not change dropout or the order of the examples.
        self._generator = torch.Generator().manual_seed(int(number("seed", seed, least=0)))
        self._policy: Policy | None = None
        self._optimizer: torch.optim.Adam | None = None
        self._restored: dict[str, Any] = {}
        self._baseline = Baseline(self.momentum)
        self._tally = Tally()
        self._pending: _Decision | None = None
        self._warming = False

    def configure(self, *, scores: Sequence[float], generator_seed: int) -> None:
        """Start the random stream of this trial."""
        self._generator.manual_seed(generator_seed)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Select everything during the warm-up, by the policy afterwards."""
        self._warming = epoch < math.ceil(self.warmup * epochs - 1e-9)
        self._tally = Tally()

    @torch.no_grad()
    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
    ) -> Tensor:
        """Return ``1 / |S_b|`` for the selected teachers of each example, ``[K, B]``."""
        weights = uniform(teacher_logits)
        if self._warming or len(weights) == 1:
            self._pending = None
            return weights
        state = observe(teacher_logits, targets, features)
        probabilities = self._policy_for(state, len(weights))(state)
        # Drawn on the CPU, so that a trial selects alike on every device.
        draws = torch.rand(probabilities.shape, generator=self._generator)
        actions = (draws.to(state.device) < probabilities).to(weights.dtype)
        count = actions.sum(dim=1)  # [B]
        weights = torch.where(count > 0, actions.T / count.clamp(min=1), weights)
        self._tally.add(actions, probabilities)
        self._pending = _Decision(state, actions, weights)
        return weights

    def feedback(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> None:
        """Reward the last selections by the updated student's logits ``[B, C]`` and learn."""
        if self._pending is None or self._policy is None or self._optimizer is None:
            return
        decision, self._pending = self._pending, None
        rewards = self._rewards(student_logits, teacher_logits, targets, decision.weights)
        advantages = self._baseline.advantages(rewards)
        with torch.enable_grad(), torch.autocast(rewards.device.type, enabled=False):
            probabilities = self._policy(decision.state)
            loss = policy_loss(probabilities, decision.actions, advantages, self.entropy_bonus)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()

    @torch.no_grad()
    def selection(
        self, teacher_logits: Tensor, targets: Tensor, *, features: Tensor | None = None
    ) -> Tensor | None:
        """Return the policy's probabilities ``[K, B]``; None before it has decided anything."""
        if self._policy is None and not self._restored:
            return None
        state = observe(upcast(teacher_logits), targets, features)
        probabilities: Tensor = self._policy_for(state, len(teacher_logits))(state)
        return probabilities.T

    def end_epoch(self) -> dict[str, float]:
        """Return ``selection_rate_k`` by teacher, ``empty_selection_rate``, ``policy_entropy``."""
        return dict(self._tally.means())

    def state_dict(self) -> dict[str, Any]:
        """Return the policy, its optimizer, the baseline and the random stream."""
        state: dict[str, Any] = {"generator": self._generator.get_state()}
        state["baseline"] = self._baseline.value
        if self._policy is not None and self._optimizer is not None:
            state["policy"] = self._policy.state_dict()
            state["optimizer"] = self._optimizer.state_dict()
        return state | self._restored

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the checkpoint left off."""
        self._generator.set_state(state["generator"].cpu())
        self._baseline.value = state["baseline"]
        self._policy = self._optimizer = None
        # The device is known with the first batch; the optimizer's state must follow the policy.
        # A copy: the tensors of a state dict are those that its owner goes on training.
        self._restored = {
            key: copy.deepcopy(state[key]) for key in ("policy", "optimizer") if key in state
        }

    def _policy_for(self, state: Tensor, teachers: int) -> Policy:
        if self._policy is None:
            self._policy = Policy(state.shape[1], teachers).to(state.device)
            self._optimizer = torch.optim.Adam(self._policy.parameters(), lr=self.lr)
            if self._restored:
                self._policy.load_state_dict(self._restored["policy"])
                self._optimizer.load_state_dict(self._restored["optimizer"])
                self._restored = {}
        return self._policy

    @torch.no_grad()
    def _rewards(
        self, student: Tensor, teachers: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        """Return the reward ``[B]`` of student ``[B, C]`` and teacher ``[K, B, C]`` logits."""
        rewards = pick(log_probabilities(student), targets)
        if self.reward == "ce":
            return rewards
        losses = kl_divergence(
            log_probabilities(teachers, self.temperature),
            log_probabilities(student, self.temperature),
        )
        return rewards - self.temperature**2 * (weights * losses).sum(dim=0)


COMPONENT = Reinforced
