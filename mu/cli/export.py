"""`mu export`: weights, configuration and model card of the model that a run serves."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mu.cli.parser import Parser
from mu.utils.errors import InputError
from mu.utils.text_files import check_new_folder

if TYPE_CHECKING:
    from mu.backbones.export.base import Form
    from mu.core.module import UnlearningModule


def main(argv: list[str]) -> int:
    """Run `mu export`; returns the exit code."""
    parser = Parser(
        prog="mu export",
        description="Write the served model of a run as a folder: weights, config, model card.",
    )
    parser.add_argument("run", help="run folder or checkpoint of mu fit")
    parser.add_argument("folder", help="folder to write, new or empty")
    parser.add_argument(
        "--edited",
        action="store_true",
        help="of a text-to-image model, only the tensors that differ from the original's",
    )
    parser.add_argument(
        "--adapter",
        action="store_true",
        help="of a text-to-image model with LoRA, only the adapters, for diffusers",
    )
    parser.add_argument(
        "--single-file",
        action="store_true",
        help="of a text-to-image model, one safetensors file in CompVis' names, for programs that "
        "take one file",
    )
    parser.add_argument("--title", help="heading of the model card")
    parser.add_argument(
        "--license", help="licence of the weights as the hub names it, for example apache-2.0"
    )
    options = parser.parse_args(argv)
    flags: dict[Form, bool] = {
        "edited": options.edited,
        "adapter": options.adapter,
        "single-file": options.single_file,
    }
    chosen: list[Form] = [form for form, flag in flags.items() if flag]
    if len(chosen) > 1:
        raise InputError(f"mu export writes one form; leave out --{chosen[0]} or --{chosen[1]}.")
    form = chosen[0] if chosen else "model"
    print(export_run(Path(options.run), Path(options.folder), options.title, options.license, form))
    return 0


def export_run(
    run: Path,
    folder: Path,
    title: str | None = None,
    license: str | None = None,
    form: Form = "model",
) -> Path:
    """Export the model that a run serves.

    Args:
        run: run folder or checkpoint.
        folder: folder to write, new or empty.
        title: heading of the model card; the folder's name when None.
        license: licence of the weights.
        form: all weights, edited tensors, adapters or one file, see `mu.backbones.export.export`.

    Returns:
        The folder.

    Raises:
        InputError: for a missing run, or a model that has no such form.
    """
    from mu.backbones.export import export as write_model
    from mu.cli.run_folder import of_checkpoint
    from mu.core.checkpoint import find_checkpoint, load
    from mu.core.run_files import check_checkpoint, check_run

    check_new_folder(folder, "the folder")
    if run.is_file() or run.is_dir():
        check_checkpoint(find_checkpoint(run))
        folder_of_run = of_checkpoint(find_checkpoint(run))
        if folder_of_run is not None:
            check_run(folder_of_run, find_checkpoint(run))
    module = load(run)
    return write_model(module.served(), folder, form, results_of(run, module), title, license)


def results_of(run: Path, module: UnlearningModule) -> dict[str, Any]:
    """Method, task, concept and metrics of a run, for its model card.

    Args:
        run: run folder or checkpoint.
        module: its method.
    """
    from mu.cli.run_folder import CONFIG, of_checkpoint, recorded_config
    from mu.core.checkpoint import find_checkpoint
    from mu.core.run_files import CHANGED, results_fault
    from mu.data.split import Split
    from mu.metrics.run_results import RunResults

    folder = run if run.is_dir() else of_checkpoint(run)
    content: dict[str, Any] = {"method": type(module).__name__, "role": _role(module)}
    if folder is not None and (folder / CONFIG).is_file():
        data = recorded_config(folder).get("data") or {}
        concept = _listed((data.get("init_args") or {}).get("concept"))
        content |= {"task": str(data.get("class_path", "")).rpartition(".")[2], "concept": concept}
    if folder is not None and (folder / "split.json").is_file():
        split = Split.load(folder / "split.json")
        content |= {
            "task": split.task,
            "concept": _listed(split.selector.get("concept")) or _selection(split.selector),
        }
    if folder is not None and (folder / "results.json").is_file():
        entries = RunResults.load_all(folder)
        record = RunResults.current(entries, folder, find_checkpoint(run).resolve())
        content |= {"method": entries[-1].method, "task": entries[-1].task}
        fault = CHANGED
        if record is not None:  # it is of the checkpoint that is exported, which may be no last one
            fault = results_fault(folder, {**record.hashes, "checkpoint": ""})
        if fault is None:
            content["metrics"] = _metrics(record)
        else:
            print(
                f"mu: warning: the card has no results, because the results in {folder} do not "
                f"belong to the run: {fault}; measure it again with mu test --run {folder}.",
                file=sys.stderr,
            )
    return content


def _listed(concept: Any) -> Any:
    """One concept, or several with commas between."""
    return ", ".join(concept) if isinstance(concept, list) else concept


def _role(module: UnlearningModule) -> str:
    """Role of the model of a run: `unlearned`, `original`, `oracle`, or `pretrained`."""
    if not module.trains_from_scratch:
        return "unlearned"
    plan = getattr(module, "plan", None)
    if plan is None:
        return "pretrained"
    return "original" if "train" in plan.reads() else "oracle"


def _selection(selector: Mapping[str, Any]) -> str:
    """A selector in words, `ByClass(classes=[3])`."""
    settings = {name: value for name, value in selector.items() if value is not None}
    name = str(settings.pop("selector", ""))
    arguments = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    return f"{name}({arguments})" if arguments else name


def _metrics(record: Any) -> list[dict[str, Any]]:
    """Metrics of a run, each with its gap to the oracle."""
    gaps = {
        result.metric.removeprefix("gap/"): result.value
        for result in record.results
        if result.metric.startswith("gap/") and result.value is not None
    }
    return [
        {
            "metric": result.metric,
            "value": result.value,
            "split": result.split or None,
            "gap": gaps.get(result.metric),
        }
        for result in record.results
        if not result.metric.startswith("gap/") and result.value is not None
    ]
