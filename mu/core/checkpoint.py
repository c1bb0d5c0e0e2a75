"""Loading of a run: its module, rebuilt from the checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mu.core.module import UnlearningModule
from mu.core.run_files import check_checkpoint
from mu.core.run_paths import located
from mu.utils.errors import InputError
from mu.utils.run_config import check_belongs, check_checksums
from mu.utils.spec import BUILDABLE, find_class, from_spec, is_live, may_build

_TRAINING_ONLY = ("optimizer", "scheduler")
"""Arguments that take their defaults where no file could hold them, because a loaded module is
not trained.
"""


def load(path: str | Path, allow: Iterable[type] = (), **live: Any) -> UnlearningModule:
    """Rebuild the module of a checkpoint, with its weights.

    Args:
        path: a checkpoint file, or a run folder (its `checkpoints/last.ckpt`).
        allow: further classes that may be instantiated (helper objects of a method).
        live: arguments of the method that no file can hold, by name
            (`backbone=Classifier(network=...)`).

    Returns:
        The UnlearningModule in eval mode; `.served()` is the unlearned backbone.

    Raises:
        InputError: there is no checkpoint, or it was not written by mu, or does not fit.
    """
    from mu.core.module import UnlearningModule
    from mu.utils.weights import read_checkpoint

    file = find_checkpoint(path)
    check_checksums(file)
    try:
        checkpoint = read_checkpoint(file)
    except InputError:
        check_checkpoint(file)  # names the newest whole one beside it
        raise
    record = checkpoint.get("mu")
    if not isinstance(record, dict) or "spec" not in record:
        raise InputError(
            f"{file} is not a checkpoint written by mu; load its weights with "
            "Classifier(weights=...)."
        )
    check_belongs(_run_of(file), file, record)
    spec = located(record["spec"], _run_of(file))
    if not isinstance(spec, dict) or not isinstance(spec.get("init_args"), dict):
        raise InputError(f"{file} has no specification of its method; fit the run again.")
    stored = {
        name: value
        for name, value in spec["init_args"].items()
        if not (name in _TRAINING_ONLY and is_live(value))
    }
    arguments = {**{name: _without_weights(value) for name, value in stored.items()}, **live}
    try:
        module = (
            from_spec(
                {**spec, "init_args": {k: v for k, v in arguments.items() if k not in live}}, allow
            )
            if not live
            else _with_live(spec["class_path"], arguments, live, allow)
        )
    except InputError as error:
        if not record.get("base"):
            raise
        raise InputError(
            f"{file} holds trained weights alone, and their base model cannot be read: {error}"
        ) from error
    if not isinstance(module, UnlearningModule):
        raise InputError(f"{spec['class_path']} is not an UnlearningModule.")
    # no reference, because serving does not need the original, which may not exist any more
    module.serves_only = True
    module.configure_model()
    module.stored_base = record.get("base")
    module.load_state_dict(checkpoint["state_dict"])
    module.original_hash = record["original_hash"]
    metadata = getattr(module.backbone, "weights_metadata", None)
    if isinstance(metadata, dict):
        metadata.update(record.get("data") or {})
    module.served().eval()
    return module.eval()


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint file that `path` names."""
    path = Path(path)
    if path.is_dir():
        for candidate in (path / "checkpoints" / "last.ckpt", path / "last.ckpt"):
            if candidate.is_file():
                return candidate
        raise InputError(
            f"{path} holds no checkpoints/last.ckpt; give a run folder of a finished fit, or a "
            ".ckpt file."
        )
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}.")
    return path


def _run_of(file: Path) -> Path:
    """Folder of the run of a checkpoint."""
    folder = file.resolve().parent
    return folder.parent if folder.name == "checkpoints" else folder


def _without_weights(spec: Any) -> Any:
    """A spec whose backbones, nested ones too, name no weights file.

    Weights come from the checkpoint, so that the file need not exist any more.
    """
    from mu.backbones import Backbone

    if isinstance(spec, list):
        return [_without_weights(item) for item in spec]
    if not isinstance(spec, dict):
        return spec
    spec = {name: _without_weights(value) for name, value in spec.items()}
    cls = find_class(str(spec["class_path"]), BUILDABLE) if "class_path" in spec else None
    if isinstance(cls, type) and issubclass(cls, Backbone):
        spec["init_args"] = {
            name: value
            for name, value in spec["init_args"].items()
            if name not in ("weights", "pretrained")
        }
    return spec


def _with_live(
    path: str, arguments: dict[str, Any], live: dict[str, Any], allow: Iterable[type]
) -> Any:
    allow = tuple(allow)
    cls = find_class(path, (*BUILDABLE, *allow))
    if not may_build(cls, allow):
        raise InputError(
            f"{path} is not a class that mu may instantiate from a file; pass "
            f"allow=[{cls.__name__}] if you trust it."
        )
    return cls(
        **{
            name: value if name in live else from_spec(value, allow)
            for name, value in arguments.items()
        }
    )
