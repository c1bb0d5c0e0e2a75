"""Saving and loading of a run's checkpoints: hooks of every unlearning module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import LightningModule

from mu.backbones import Backbone
from mu.core import run_state
from mu.core.base_weights import BaseWeights
from mu.core.checks import FitChecks
from mu.core.epoch_means import EpochMeans
from mu.core.sharding import stored_shapes
from mu.utils.errors import InputError
from mu.utils.timing import Stopwatch


class CheckpointHooks(LightningModule):
    """LightningModule whose checkpoints hold the run's record, and no frozen original.

    Attributes:
        original_hash: hash of the weights that the run began from.
        base: untrained weights that checkpoints leave out; None before `configure_model`.
        stored_base: hash of those that the loaded checkpoint left out.
        original_is_gone: whether a resumed run is built without the original weights, which are not
            there any more.
        run_settings: hash of the settings in the run's config.yaml that a resume may not change.
    """

    backbone: Backbone
    checks: FitChecks
    epoch_means: EpochMeans
    stopwatch: Stopwatch
    original_hash: str
    base: BaseWeights | None
    stored_base: str | None
    trains_from_scratch: bool
    facts: dict[str, Any]
    run_settings: str = ""
    original_is_gone: bool = False
    _recipe: str | None
    _epoch_end_pending: bool

    @property
    def _method(self) -> run_state.TrainedMethod:
        return cast(run_state.TrainedMethod, self)

    @property
    def strict_loading(self) -> bool:
        """Whether Lightning itself refuses a checkpoint that lacks a key of the module.

        `load_state_dict` does that, and knows which keys are rebuilt; but Lightning loads sharded
        weights without it.
        """
        return self.device_mesh is None

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The state without what is rebuilt: the reference, and untrained weights of the base."""
        omitted = [run_state.REFERENCE, *(self.base.omitted() if self.base is not None else [])]
        return run_state.without_keys(
            super().state_dict(*args, **kwargs), omitted, kwargs.get("prefix", "")
        )

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state in which only what is rebuilt may be absent, with `strict` or without.

        A module whose fit ran in other processes (ddp_spawn) has no mask yet, so it is built first.

        Raises:
            InputError: names a key that is missing, unknown or of another shape.
        """
        self.configure_model()
        try:
            result = super().load_state_dict(state_dict, strict=False, assign=assign)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise InputError(
                f"the checkpoint does not fit this method and backbone: {reason}"
            ) from error
        self._check_keys(result.missing_keys, result.unexpected_keys)
        return result

    def _check_keys(self, missing: Iterable[str], unexpected: Iterable[str]) -> None:
        """Refuse keys that a state lacks, apart from those of what is rebuilt, and unknown ones."""
        missing = [key for key in missing if not key.startswith(run_state.REFERENCE)]
        if self.base is not None:
            missing = self.base.check(missing, self.stored_base)
        run_state.check_keys(missing, list(unexpected))

    def _check_sharded(self) -> None:
        """Check the file whose tensors Lightning has put into sharded weights, key by key."""
        stored = stored_shapes(Path(str(self.trainer.ckpt_path)))
        if stored is None:
            return
        present = super().state_dict()
        self._check_keys(
            [key for key in present if key not in stored],
            [key for key in stored if key not in present],
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the run's record; refuse to save losses or weights that are not finite."""
        self.checks.check_pending(self._method)
        self.checks.check_weights(self._method)
        checkpoint["mu"] = run_state.run_record(self._method, self.recipe_hash())
        if self.base is not None and self.base.omitted():
            checkpoint["mu"]["base"] = self.base.hash
        if self.epoch_means.state():
            checkpoint["mu"]["epoch_means"] = self.epoch_means.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read the run's record; refuse to resume from other original weights or another seed."""
        record = checkpoint.get("mu", {})
        self.stored_base = record.get("base")
        if self.device_mesh is not None:
            self._check_sharded()
        self.epoch_means.load(record.get("epoch_means", {}))
        self._epoch_end_pending = bool(record.get("epoch_end_due")) and self._resuming()
        # in a fresh process, the time before the checkpoint belongs to the run too
        if not self.stopwatch.seconds():
            self.stopwatch.add(record.get("seconds", {}))
        if self._resuming():
            run_state.check_resumable(self._method, record)
        else:
            # only evaluated: the checkpoint says what the run began from, and not the weights with
            # which the backbone happens to be built
            self.original_hash = record.get("original_hash") or self.original_hash
            self._recipe = record.get("recipe")
            self.facts["fit_threads"] = record.get("threads")
            progress = {name: record[name] for name in ("epochs", "steps") if name in record}
            self.facts.update(progress)

    def recipe_hash(self) -> str:
        """Hash of the recipe by which the original was trained.

        It is this run's recipe for Train and Retrain, else the one recorded with the weights.
        """
        if self._recipe is not None and not self._resuming():
            return self._recipe
        if self.trains_from_scratch:
            return run_state.recipe_hash(self._method)
        return str(getattr(self.backbone, "weights_metadata", {}).get("recipe", ""))

    def _resuming(self) -> bool:
        from lightning.pytorch.trainer.states import TrainerFn

        return self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
