"""The model card: README.md of an exported folder."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.exporting.facts import Facts
from orchestrator.exporting.folder import FACTS, GRAPHS, SCRIPT
from orchestrator.exporting.seen import SEEN
from orchestrator.report.document import Report
from orchestrator.report.naming import count, describe_metric, dev_and_test, percent, size
from orchestrator.report.phrases import ratio_sentence, score, score_spread

_FORMS = {
    "int8": "student, ONNX int8",
    "fp32": "student, ONNX float32",
    "torch": "student, torch",
    "teacher": "teacher, torch",
}


def write_card(facts: Facts, report: Report) -> str:
    """Return the card as Markdown."""
    blocks = [
        f"# {facts.sweep}",
        f"A text classifier with {len(facts.labels)} labels and {count(facts.parameters)} "
        f"parameters: {_sentence(facts)}",
        *_claims(facts, report),
        "## Use",
        f'```bash\npip install numpy onnxruntime tokenizers\npython {SCRIPT} "some text"\n```',
        _files(facts),
        "## Data and training",
        *_training(facts, report),
        "## Scores",
        *_scores(facts, report),
        "## Size and speed",
        *_speed(facts),
        "## Limits",
        _bullets(_limits(facts, report)),
    ]
    return "\n\n".join(blocks) + "\n"


def _sentence(facts: Facts) -> str:
    return f"{facts.method} (trial `{facts.trial[:12]}`, seed {facts.seed})."


def _claims(facts: Facts, report: Report) -> list[str]:
    if not facts.confirmed:
        return [
            "This student is not the one that its sweep confirmed over several seeds: "
            "nothing is claimed about it beyond its scores on dev."
        ]
    claims = [f"**{c.verdict}**: {_after(c.sentence)}" for c in report.comparisons]
    return [*claims, ratio_sentence(report)]


def _after(sentence: str) -> str:
    return sentence.partition(": ")[2] or sentence


def _files(facts: Facts) -> str:
    about = {
        GRAPHS["int8"]: "weights in int8, ONNX; what the script uses",
        GRAPHS["fp32"]: "the same in float32",
        "model.safetensors": "the trained weights",
        "architecture.json": "what they belong to",
        "tokenizer.json": "for the `tokenizers` library",
        "numbering.safetensors": "student's ids of the tokenizer's, for torch only",
        "config.json": "labels, padding, length",
        SCRIPT: "classifies texts without the project that trained the student",
        SEEN: "hashes of the texts it learned from, for later sweeps that it teaches",
        FACTS: "the numbers below as JSON",
    }
    rows = [[f"`{n}`", size(facts.bytes.get(n)), text] for n, text in about.items()]
    return _table(["file", "size", "what"], rows)


def _training(facts: Facts, report: Report) -> list[str]:
    rows = report.data.get("rows") or {}
    shown = ", ".join(f"{number} {split}" for split, number in rows.items() if number)
    dev, test = dev_and_test(report.objective[0])
    teachers = [
        [t.name, count(t.metrics.get("parameters")), score(t.metrics, dev), score(t.metrics, test)]
        for t in report.teachers
    ]
    return [
        f"Rows: {shown}. Data digest `{facts.data_digest}`. Labels: "
        + ", ".join(f"`{label}`" for label in facts.labels)
        + ".",
        _table(["teacher", "parameters", describe_metric(dev), describe_metric(test)], teachers),
    ]


def _scores(facts: Facts, report: Report) -> list[str]:
    dev, test = dev_and_test(report.objective[0])
    blocks = []
    if report.confirm:
        rows = [
            [
                "**this configuration**" if row.chosen and facts.confirmed else row.role,
                row.method,
                str(len(row.seeds)),
                score_spread(row.metrics.get(dev)),
                score_spread(row.metrics.get(test)),
            ]
            for row in report.confirm
        ]
        header = ["", "taught by", "seeds", describe_metric(dev), describe_metric(test)]
        blocks += ["Mean ± standard deviation over seeds, in per cent.", _table(header, rows)]
    forms = [["torch, float32", percent(facts.trained["f1_macro"]), "-", "-"]]
    forms += [
        [
            f"ONNX {name}",
            percent(found.f1_macro),
            f"{found.max_logit_difference:.2g}",
            f"{percent(found.label_agreement, 2)} %",
        ]
        for name, found in facts.equality.items()
    ]
    n = next(iter(facts.equality.values())).rows
    blocks += [
        f"The files in this folder, one seed, on the {n} texts of the dev split:",
        _table(["form", "dev macro F1", "largest logit difference", "same label as torch"], forms),
    ]
    return blocks


def _speed(facts: Facts) -> list[str]:
    teacher = facts.teacher
    weights = facts.weights()
    rows = []
    for form, label in _FORMS.items():
        if form not in weights:
            continue
        cells = [f"{t[form].p50_ms:.3g} / {t[form].p95_ms:.3g}" for t in facts.latency.values()]
        rows.append([label, size(weights[form]), *cells])
    header = ["", "size", *(f"batch {n}: p50 / p95 ms" for n in facts.latency)]
    where = facts.machine
    text = (
        f"Forward pass of dev texts on one thread of {where['cpu']} ({where['cores']} cores), all "
        "forms in turns in one run; tokenisation is not counted."
    )
    if teacher is None:
        return [text, _table(header, rows)]
    ratios = facts.ratios()
    faster = " and ".join(
        f"{values['p50']:.3g} times faster at batch {size}"
        for size, values in ratios["faster"].items()
    )
    return [
        text,
        _table(header, rows),
        f"In int8 it is {ratios['smaller']:.3g} times smaller than teacher {teacher.name} "
        f"({count(teacher.parameters)} parameters) and {faster}.",
    ]


def _limits(facts: Facts, report: Report) -> list[str]:
    limits = [
        "Every text gets one of the labels above, also one that fits none of them.",
        f"Only the first {facts.max_length} tokens of a text are read.",
        "The probability is the softmax of the logits, not a calibrated confidence"
        + _calibration(report),
        "Sizes and scores hold everywhere; times hold for the machine named above.",
        "On x86 processors without VNNI instructions int8 sums can saturate: compare with the "
        "float32 graph before relying on the int8 one there.",
        f"Who holds a text can find out from `{SEEN}` whether it was among those learned from; "
        "delete that file where this must not be.",
        "Licences and consent of the data and of the teachers' checkpoints apply to this model.",
    ]
    return limits + [note.rstrip(".") + "." for note in report.notes]


def _calibration(report: Report) -> str:
    for row in report.diagnosis.fidelity:
        if row.model == "candidate":
            split = report.diagnosis.split
            return f" (expected calibration error {percent(row.ece)} % on {split})."
    return "."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
