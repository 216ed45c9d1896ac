"""The strongest simple thing: one process, an Optuna loop, cached logits in memory.

Nothing is durable and nothing is tracked. The student is the TextCNN that PyTorch's own layers
give, its batches are cut to their longest row, and all cores work on one trial. Run by
``test_whole_sweeps.py`` as ``python simple_sweep.py CONFIG HOME EPOCHS TRIALS THREADS``; prints one
JSON document.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.config import load_config
from orchestrator.home import Home
from orchestrator.materials import prepare_data, prepare_materials
from orchestrator.specs import StudentFactory, trained_teacher
from trainables.batching import gather
from trainables.evaluation import open_encoded
from trainables.outputs import load_outputs, positions


class TextCNN(nn.Module):
    """Embeddings, three convolutions, maximum over time."""

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, 300, padding_idx=0)
        self.windows = nn.ModuleList(nn.Conv1d(300, 256, k, padding=k // 2) for k in (2, 3, 4))
        self.classifier = nn.Linear(3 * 256, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits ``[B, C]`` of token ids ``[B, L]``."""
        vectors = self.table(ids).transpose(1, 2)
        pooled = [functional.relu(window(vectors)).amax(dim=2) for window in self.windows]
        features = functional.dropout(torch.cat(pooled, dim=1), 0.3, self.training)
        logits: Tensor = self.classifier(features)
        return logits


def main() -> None:
    """Run the sweep and print what it took."""
    config_path, home_path, epochs, trials, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    config = load_config(config_path)
    store = Home(Path(home_path)).store
    data = prepare_data(config, store, lambda _: None)
    materials = prepare_materials(config, data, store, lambda _: None)
    teachers = [trained_teacher(config, teacher, 0.5) for teacher in materials.teachers]
    base = StudentFactory(config, materials, teachers).spec({})
    train, dev = open_encoded(store, base.train), open_encoded(store, base.dev)
    ids, mask = gather(train, torch.arange(len(train)))
    dev_ids, _ = gather(dev, torch.arange(len(dev)))
    lengths = mask.sum(dim=1)
    cached = [load_outputs(store, teacher.outputs["train"]) for teacher in teachers]
    logits = torch.stack([c.logits[positions(train.ids, c.ids, "teacher")] for c in cached])
    steps = int(epochs) * -(-len(train) // base.batch_size)

    def objective(trial: optuna.Trial) -> float:
        alpha = trial.suggest_float("alpha", 1, 16, log=True)
        temperature = trial.suggest_float("temperature", 1, 4, log=True)
        torch.manual_seed(trial.number)
        model = TextCNN(base.vocab_size, base.n_classes)
        optimizer = torch.optim.AdamW(model.parameters(), lr=base.optimizer.lr)
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        best = 0.0
        for _ in range(int(epochs)):
            model.train()
            for index in torch.randperm(len(train)).split(base.batch_size):
                student = model(ids[index, : int(lengths[index].max())])
                soft = functional.softmax(logits[:, index] / temperature, dim=-1).mean(dim=0)
                told = functional.log_softmax(student / temperature, dim=-1)
                kd = -(soft * told).sum(dim=-1).mean() * temperature**2
                loss = functional.cross_entropy(student, train.labels[index]) + alpha * kd
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                decay.step()
            model.eval()
            with torch.no_grad():
                right = torch.cat([model(part).argmax(dim=1) for part in dev_ids.split(1024)])
            best = max(best, float((right == dev.labels).float().mean()))
        return best

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"alpha": 4.0, "temperature": 2.0})
    started = time.perf_counter()
    study.optimize(objective, n_trials=int(trials))
    wall = time.perf_counter() - started
    scores = [trial.value for trial in study.trials]
    print(json.dumps({"wall": wall, "accuracy": scores}))


if __name__ == "__main__":
    main()
