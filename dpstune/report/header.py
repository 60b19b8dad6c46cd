"""The facts at the top of every report: recipe, model, task, machine, date, and the command that makes it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.models.names import shown_models
from dpstune.report.page import Fact, Facts
from dpstune.studies.points import model_names, task_names
from dpstune.studies.records import RunRecord

if TYPE_CHECKING:
    from dpstune.evaluation.trained import TrainedModel, TrainedPlace


def report_header(
    *,
    recipe: str = "",
    model: str = "",
    model_places: Iterable[str] = (),
    task: str = "",
    environments: Iterable[Mapping[str, Any]] = (),
    dates: Iterable[str] = (),
    command: str | None = None,
) -> Facts:
    """Return the facts at the top of a report; unknown ones are left out.

    Args:
        recipe: The recipe's name.
        model: The model's name for people.
        model_places: The model's full path, if its name does not say it.
        task: The task's name.
        environments: Machine and software of each run, as ``describe_environment`` returns them.
        dates: When each run ended, as YYYY-MM-DD.
        command: The command line that makes the report again.
    """
    environments = [each for last in environments for each in (*last.get("earlier", ()), last)]
    machines = dict.fromkeys(map(_machine, environments))
    software = dict.fromkeys(map(_software, environments))
    days = sorted(set(dates))
    facts = [
        Fact("Recipe", recipe),
        Fact("Model", model, ", ".join(model_places)),
        Fact("Task", task),
        Fact("Machine", "; ".join(machines), "; ".join(software)),
        Fact("Date", " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""),
        Fact("Command", command or "", code=True),
    ]
    return Facts([fact for fact in facts if fact.text])


def runs_header(records: Sequence[RunRecord], command: str | None, files: Sequence[Path] = ()) -> Facts:
    """Return the facts at the top of a report on finished runs.

    Args:
        records: The runs.
        command: See ``report_header``.
        files: Other files that were read; their dates count, too.
    """
    names = dict.fromkeys(record.recipe.model.name for record in records)
    return report_header(
        recipe=", ".join(dict.fromkeys(str(record.result["recipe"]) for record in records)),
        model=", ".join(model_names(records)),
        model_places=[name for name, shown in shown_models(names).items() if shown != name],
        task=", ".join(task_names(records)),
        environments=filter(None, (record.environment for record in records)),
        dates=[
            *(record.ended.date().isoformat() for record in records if record.ended is not None),
            *(date.fromtimestamp(file.stat().st_mtime).isoformat() for file in files if file.exists()),
        ],
        command=command,
    )


def evaluation_header(place: TrainedPlace, task: str, model: TrainedModel, command: str | None) -> Facts:
    """Return the head of a report on a trained model that was evaluated now, on this machine.

    Args:
        place: Where the model lies.
        task: What it was evaluated on.
        model: The model, as it was loaded.
        command: See ``report_header``.
    """
    from dpstune.device.hardware import describe_environment

    name = place.recipe.model.name if place.recipe is not None else str(place.folder)
    result = place.run.read_result() if place.run is not None else None
    return report_header(
        recipe=str(result["recipe"]) if result is not None else "",
        model=shown_models([name])[name],
        model_places=[str(place.folder)],
        task=task,
        environments=[describe_environment(model.device, model.precision, 1)],
        dates=[date.today().isoformat()],
        command=command,
    )


def profile_header(outcome: Mapping[str, Any], command: str | None) -> Facts:
    """Return the facts at the top of a report on what ``profile`` measured."""
    name = outcome["model"]
    shown = shown_models([name])[name]
    return report_header(
        recipe=outcome["recipe"],
        model=shown,
        model_places=[name] if shown != name else [],
        environments=[outcome["environment"]],
        dates=[outcome["date"]],
        command=command,
    )


def _machine(environment: Mapping[str, Any]) -> str:
    """Return device, threads, precision and processes: what decides how long a run takes.

    >>> _machine({"device": "cpu", "threads": 1, "cpus": 8, "machine": "x86_64", "precision": "fp32", "processes": 2})
    'cpu (x86_64, 1 thread of 8 cores), fp32, 2 processes'
    """
    device, threads, cpus = (environment.get(key) for key in ("device", "threads", "cpus"))
    text = str(device or "unknown")
    if device == "cpu":
        text += f" ({environment.get('machine')}, {threads} {'thread' if threads == 1 else 'threads'} of {cpus} cores)"
    parts = [text, environment.get("precision")]
    if environment.get("processes", 1) != 1:
        parts.append(f"{environment['processes']} processes")
    return ", ".join(str(part) for part in parts if part)


def _software(environment: Mapping[str, Any]) -> str:
    packages = environment.get("packages")
    named = packages.items() if isinstance(packages, dict) else ()
    versions = [f"{name} {version}" for name, version in named if version]
    return ", ".join([str(environment.get("platform", "")), f"Python {environment.get('python', '')}", *versions])
