"""The command line: parse, call, print, exit code. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from orchestrator.deployment.verbs import app as cluster_app
from orchestrator.errors import OrchestratorError, ProblemsError, UsageError

if TYPE_CHECKING:
    from orchestrator.schema import SweepConfig

app = typer.Typer(
    name="orchestrator",
    help="Distil text classifiers: fine-tune teachers, search students, compare them in MLflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.add_typer(cluster_app, name="cluster")

Config = Annotated[
    str, typer.Argument(help="A config file, or the name of a preset.", show_default=True)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field, e.g. search.trials=8."),
]
HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Where everything is kept.", envvar="ORCHESTRATOR_HOME"),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Keep artifacts in s3://bucket/prefix, not in the home, which remembers it.",
        envvar="ORCHESTRATOR_STORE",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Name = Annotated[str | None, typer.Argument(help="A sweep; without it, the latest.")]
Address = Annotated[
    str | None,
    typer.Option(help="A running Ray cluster: 'auto' or host:port. Without it, this machine."),
]
Cpus = Annotated[int | None, typer.Option(min=1, help="CPUs to use on this machine.")]
Gpus = Annotated[int | None, typer.Option(min=0, help="GPUs to use on this machine.")]


def main() -> None:
    """Run the command line; errors a user can mend are printed without a traceback."""
    from trainables.errors import TrainableError

    try:
        app()
    except OrchestratorError as error:
        _fail(error, error.exit_code)
    except TrainableError as error:
        _fail(error, 3)
    except KeyboardInterrupt:
        typer.secho("interrupted", err=True, fg="yellow")
        sys.exit(130)


@app.command()
def sweep(
    config: Config = "quickstart",
    overrides: Overrides = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Short for --set search.trials=N.")
    ] = None,
    home: HomeOption = None,
    store: StoreOption = None,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings only.")] = False,
    as_json: Json = False,
) -> None:
    """Run a sweep. Started again, it continues; with more trials, it extends.

    Example: orchestrator sweep my.yaml --set search.trials=8
    """
    from orchestrator.driver import run_sweep
    from orchestrator.engine import Options
    from orchestrator.home import Home

    settings = _load(config, overrides, trials)
    options = Options(address=address, cpus=cpus, gpus=gpus, python_path=str(Path.cwd()))
    report = run_sweep(settings, Home(home, store=store), options, "quiet" if quiet else "auto")
    if as_json:
        _print_json(report.to_json())
    else:
        _print_report(report)


@app.command()
def reproduce(
    preset: Annotated[str, typer.Argument(help="A preset of a paper; see 'ls presets'.")],
    fast: Annotated[
        bool, typer.Option("--fast", help="The preset's short form: minutes on two cores.")
    ] = False,
    overrides: Overrides = None,
    home: HomeOption = None,
    store: StoreOption = None,
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings only.")] = False,
    as_json: Json = False,
) -> None:
    """Run a paper's experiment and print our numbers beside the published ones.

    Example: orchestrator reproduce news-isomorphic --fast --set data.source=csv
    """
    from orchestrator.engine import Options
    from orchestrator.home import Home
    from orchestrator.reproduce import reproduce as run
    from orchestrator.show import show_reproduction

    options = Options(address=address, cpus=cpus, gpus=gpus, python_path=str(Path.cwd()))
    place = Home(home, store=store)
    result = run(preset, list(overrides or []), place, options, fast=fast, quiet=quiet)
    if as_json:
        _print_json(result.to_json())
    else:
        show_reproduction(result)


@app.command()
def plan(
    config: Config = "quickstart",
    overrides: Overrides = None,
    home: HomeOption = None,
    store: StoreOption = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    estimate: Annotated[
        bool, typer.Option(help="Time a few steps of each model to estimate the whole.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Show what a sweep would do, what is cached, and about how long it takes. Trains nothing.

    Example: orchestrator plan my.yaml
    """
    from orchestrator.planning import plan_sweep
    from orchestrator.show import show_plan

    result = plan_sweep(
        _load(config, overrides),
        home,
        store=store,
        cpus=cpus,
        gpus=gpus,
        estimate=estimate,
        tell=_tell,
    )
    if as_json:
        _print_json(result.to_json())
    else:
        show_plan(result)


@app.command()
def status(name: Name = None, home: HomeOption = None, as_json: Json = False) -> None:
    """Show how far a sweep is, what failed and why. Works while it runs.

    Example: orchestrator status news
    """
    from orchestrator.home import Home
    from orchestrator.show import show_status
    from orchestrator.status import sweep_status

    place = Home(home)
    result = sweep_status(place, place.find_sweep(name))
    if as_json:
        _print_json(result.to_json())
    else:
        show_status(result)


@app.command()
def report(
    name: Name = None,
    home: HomeOption = None,
    fmt: Annotated[
        str, typer.Option("--format", help="text, md, csv, json or html.", metavar="FORMAT")
    ] = "text",
    output: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Show the leaderboard, the verdict and the cost of a sweep; needs neither Ray nor MLflow.

    Example: orchestrator report news --format csv --output news.csv
    """
    from orchestrator.history import load_report
    from orchestrator.home import Home
    from orchestrator.show import render_report

    place = Home(home)
    result = load_report(place, place.find_sweep(name))
    chosen = "json" if as_json else fmt
    if chosen == "text" and output is None:
        _print_report(result)
        return
    text = render_report(result, chosen)
    if output is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {output}: {error.strerror}") from error
        _tell(f"wrote {output}")


@app.command()
def export(
    name: Name = None,
    output: Annotated[
        Path | None, typer.Option(help="The folder to write; NAME-export here if not given.")
    ] = None,
    trial: Annotated[
        str | None, typer.Option(help="Key of a trial; without it, the confirmed student.")
    ] = None,
    register: Annotated[
        bool, typer.Option(help="Also put it into the MLflow model registry.")
    ] = True,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Write one student as a folder that runs anywhere: ONNX, tokenizer, model card.

    Example: orchestrator export news --output news-student
    """
    from orchestrator.export import export_student
    from orchestrator.exporting.show import show_export
    from orchestrator.home import Home

    place = Home(home)
    sweep_name = place.find_sweep(name)
    target = output or Path(f"{sweep_name}-export")
    result = export_student(place, sweep_name, target, trial=trial, registered=register, tell=_tell)
    if as_json:
        _print_json(result.to_json())
    else:
        show_export(result)
    if result.problem:
        raise OrchestratorError(f"exported, but not registered: {result.problem}")


@app.command()
def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to classify.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="An exported folder, or a sweep that was exported; else the latest."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--input", help="A csv, tsv, jsonl or parquet file instead.")
    ] = None,
    column: Annotated[str, typer.Option("--text-column", help="Its column of texts.")] = "text",
    output: Annotated[
        Path | None, typer.Option(help="Where its rows go, with the answers: csv, tsv or jsonl.")
    ] = None,
    fp32: Annotated[bool, typer.Option("--fp32", help="Use float32 instead of int8.")] = False,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Classify texts, or every row of a file, with an exported student.

    Example: orchestrator predict --model news --input new.csv --output answers.csv
    """
    from orchestrator.exporting.show import progress_bar, show_answers
    from orchestrator.home import Home
    from orchestrator.predict import Request, predict_file, predict_texts

    request = Request(Home(home), model, "fp32" if fp32 else "int8")
    if source is not None or output is not None:
        with progress_bar() as hear:
            done = predict_file(request, source, column, output, texts, hear)
        if as_json:
            _print_json(done.to_json())
        else:
            _tell(done.sentence())
        return
    answers = predict_texts(request, texts)
    if as_json:
        _print_json([vars(one) for one in answers])
    else:
        show_answers(answers)


@app.command("ls")
def list_components(
    what: Annotated[
        str | None,
        typer.Argument(
            help="components, presets, sweeps, a kind such as losses, or pkg.mod:Name; all if none."
        ),
    ] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """List components with their sources, presets and sweeps.

    Example: orchestrator ls losses
    """
    from orchestrator.home import Home
    from orchestrator.listing import list_everything
    from orchestrator.show import show_listing

    result = list_everything(Home(home), what)
    if as_json:
        _print_json(result)
    else:
        show_listing(result)


@app.command()
def init(
    preset: Annotated[str, typer.Argument(help="The preset to copy; see 'ls presets'.")] = (
        "quickstart"
    ),
    output: Annotated[
        Path | None, typer.Option(help="Where to; PRESET.yaml here if not given.")
    ] = None,
) -> None:
    """Copy a commented preset to edit.

    Example: orchestrator init quickstart --output my.yaml
    """
    from orchestrator.template import copy_preset

    target = output or Path(f"{preset}.yaml")
    path = copy_preset(preset, target, sweep=target.stem)[-1]
    _tell(f"wrote {path}; edit it, then: orchestrator plan {path}")


@app.command()
def ui(
    name: Name = None,
    home: HomeOption = None,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
) -> None:
    """Open the MLflow UI on the runs of this home (or of the server a sweep reports to).

    Example: orchestrator ui --port 5001
    """
    from orchestrator.home import Home
    from orchestrator.interface import open_ui

    sys.exit(open_ui(Home(home), name, port, _tell))


@app.command()
def sync(name: Name = None, home: HomeOption = None, as_json: Json = False) -> None:
    """Deliver to MLflow what has not reached it; safe to repeat.

    Example: orchestrator sync news
    """
    from orchestrator.home import Home
    from orchestrator.interface import deliver

    place = Home(home)
    result = deliver(place, place.find_sweep(name))
    if as_json:
        _print_json(result)
    else:
        _tell(f"delivered {result['shipped']} events, {result['lag']} left")
    if result["error"]:
        raise OrchestratorError(f"MLflow did not take everything: {result['error']}")


@app.command()
def doctor(home: HomeOption = None, as_json: Json = False) -> None:
    """Check this machine: versions, GPUs, bf16, disk, the home and its databases.

    Example: orchestrator doctor
    """
    from orchestrator.doctor import examine
    from orchestrator.home import Home
    from orchestrator.show import show_checks

    checks = examine(Home(home))
    if as_json:
        _print_json([check.to_json() for check in checks])
    else:
        show_checks(checks)
    if not all(check.good for check in checks):
        sys.exit(3)


def _load(config: str, overrides: list[str] | None, trials: int | None = None) -> SweepConfig:
    from orchestrator.config import load_config

    given = list(overrides or [])
    if trials is not None:
        given.append(f"search.trials={trials}")
    return load_config(config, given)


def _print_report(report: Any) -> None:
    from rich.console import Console

    from orchestrator.report.text import render_text

    render_text(report, Console())


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _tell(text: str) -> None:
    typer.secho(text, err=True, fg="bright_black")


def _fail(error: Exception, code: int) -> NoReturn:
    problems = error.problems if isinstance(error, ProblemsError) else [str(error)]
    for problem in problems:
        typer.secho(f"error: {problem}", err=True, fg="red")
    sys.exit(code)


if __name__ == "__main__":
    main()
