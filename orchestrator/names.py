"""What trials are called: a few words that tell them apart in a list."""

from __future__ import annotations

from typing import Any

from orchestrator.ledger import Proposal

_SHORT = {"temperature": "T"}


def trial_name(proposal: Proposal) -> str:
    """Return a name such as ``kd T=3.1 average bert+bert_cnn`` or ``plain``."""
    params = proposal.params
    if proposal.task == "teacher":
        fold = f" without fold {params['fold']}" if "fold" in params else ""
        return f"teacher {proposal.role}{fold}"
    if proposal.task == "outputs":
        share = f" after {params['anchor']:.0%}" if "anchor" in params else ""
        return f"{proposal.role}{share} on {params['split']}"
    if "arm" in params:
        return f"arm {params['arm']} seed {proposal.seed}"
    if params.get("loss", "none") == "none":
        name = "plain"
    else:
        name = " ".join(
            [
                *_component(params, "loss"),
                f"a={params['alpha']:.3g}",
                *_component(params, "weighting"),
                *(_component(params, "hint") if "hint" in params else ()),
                str(params["teachers"]),
            ]
        )
    if proposal.role.startswith("control"):
        name = f"control {name}"
    return f"{name} seed {proposal.seed}" if proposal.task == "confirm" else name


def _component(params: Any, kind: str) -> list[str]:
    words = [str(params[kind])]
    for name, value in params.items():
        if name.startswith(f"{kind}."):
            short = name.removeprefix(f"{kind}.")
            number = f"{value:.3g}" if isinstance(value, float) else str(value)
            words.append(f"{_SHORT.get(short, short)}={number}")
    return words
