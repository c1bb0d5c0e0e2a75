"""`mu export`: a run's model as people share it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mu.commands.arguments import Parser
from mu.errors import InputError

if TYPE_CHECKING:
    from mu.results import RunRecord


def main(argv: list[str]) -> int:
    """The command; returns its exit code."""
    parser = Parser(prog="mu export", description="Write the served model of a run as a folder: weights, config, model card.")
    parser.add_argument("run", help="run folder or checkpoint of mu fit")
    parser.add_argument("folder", help="where to; new or empty")
    parser.add_argument("--title", help="heading of the model card")
    parser.add_argument("--license", help="licence of the weights as the hub names it, for example apache-2.0")
    given = parser.parse_args(argv)
    print(export_run(Path(given.run), Path(given.folder), given.title, given.license))
    return 0


def export_run(run: Path, folder: Path, title: str | None = None, license: str | None = None) -> Path:
    """Export the model that a run serves.

    Args:
        run: run folder or checkpoint.
        folder: where to; new or empty.
        title: heading of the model card; the folder's name when None.
        license: licence of the weights.

    Returns:
        The folder.

    Raises:
        InputError: when there is no such run, or its model is no single image network.
    """
    import mu
    from mu.backbones import Classifier
    from mu.export import export
    from mu.recorded import arguments_of
    from mu.results import RunRecord

    served = mu.load(run).served()
    if not isinstance(served, Classifier):
        raise InputError(f"{run} serves a {type(served).__name__}, and only a Classifier can be exported; load it with mu.load.")
    network: Any = served.network
    normalize = getattr(network, "normalize", None)
    if normalize is None:
        raise InputError(f"{run} holds a network of your own, which no name describes; save it with torch.save(...state_dict()).")
    card = _card(RunRecord.load(run)) if (run / "results.json").is_file() else None
    return export(
        network, folder, name=served.name, num_classes=served.num_classes, mean=normalize.mean.tolist(), std=normalize.std.tolist(),
        input_size=network.input_size, results=card, options=arguments_of(served).get("options"), title=title, license=license,
    )


def _card(record: RunRecord) -> dict[str, Any]:
    """What the model card says: each gap stands beside the metric that it is of."""
    gaps = {result.metric.removeprefix("gap/"): result.value for result in record.results if result.metric.startswith("gap/")}
    rows = [{"metric": result.metric, "value": result.value, "split": result.split or None, "gap": gaps.get(result.metric)}
            for result in record.results if not result.metric.startswith("gap/")]
    return {"method": record.method, "task": record.task, "metrics": rows}
