"""Untrained weights of a base model, which checkpoints leave out."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from mu.backbones.base import Backbone, named_hash
from mu.utils.errors import InputError

BACKBONE = "backbone."
"""Prefix of the backbone's keys in a module's state dict."""


class BaseWeights:
    """Weights of a module that are not trained, and that its base model gives.

    A checkpoint holds their hash in place of them, so that the run of an adapter has the size of
    the adapter.

    Args:
        module: method with a `backbone` that still has its original weights; its further models may
            share weights with it.
        trained: the weights that the method moves.
        watch: whether to look for later changes, by a reference to each weight; weights that are
            sharded afterwards cannot be watched.

    Attributes:
        hash: hash of the weights; empty where there are none.
    """

    def __init__(
        self, module: nn.Module, trained: Iterable[nn.Parameter], watch: bool = True
    ) -> None:
        backbone = module.get_submodule(BACKBONE.removesuffix("."))
        assert isinstance(backbone, Backbone)
        moved = {id(weight) for weight in trained}
        weights = {
            name: weight
            for name, weight in backbone.base_weights().items()
            if not weight.requires_grad and id(weight) not in moved
        }
        self._module = module
        self._backbone = backbone
        self._names_by_id = {id(weight): name for name, weight in weights.items()}
        self._watched = list(weights.values()) if watch else []
        self._keys = self._find_keys()
        self.hash = named_hash(backbone, self._keys.values()) if self._keys else ""
        self._versions = self._present_versions()

    def names(self) -> dict[str, str]:
        """Name in the backbone of each key of the module's state dict that may be left out.

        The method may have added models that share weights with the backbone.
        """
        # sharded weights are other objects than those of the start
        return self._find_keys() if self._watched else self._keys

    def _find_keys(self) -> dict[str, str]:
        return {
            key: key.removeprefix(BACKBONE)
            if key.startswith(BACKBONE)
            else self._names_by_id[id(weight)]
            for key, weight in self._module.named_parameters(remove_duplicate=False)
            if id(weight) in self._names_by_id
        }

    def omitted(self) -> list[str]:
        """Keys that a checkpoint may leave out now; none when the weights were changed after all.

        Another dtype is a change too: the base model gives the weights in their own.
        """
        versions = self._present_versions()
        if versions != self._versions:
            if named_hash(self._backbone, self.names().values()) != self.hash:
                return []
            self._versions = versions
        return list(self.names())

    def check(self, missing: Iterable[str], stored_hash: str | None) -> list[str]:
        """Keys that a checkpoint lacks and the base model does not give.

        Args:
            missing: keys of the module that the checkpoint lacks.
            stored_hash: hash of the weights that the checkpoint left out; None where unknown.

        Raises:
            InputError: the base model does not hold the weights that were left out.
        """
        missing = list(missing)
        rebuilt = self.names()
        names = {rebuilt[key] for key in missing if key in rebuilt}
        if names and stored_hash is not None:
            is_complete = names == set(rebuilt.values())
            own_hash = self.hash if is_complete else named_hash(self._backbone, names)
            if own_hash != stored_hash:
                raise InputError(
                    f"the checkpoint holds trained weights alone, on a base model of hash "
                    f"{stored_hash}, but that of the backbone has {own_hash}; give the backbone "
                    "the model that the run began from."
                )
        return [key for key in missing if key not in rebuilt]

    def _present_versions(self) -> list[tuple[object, int]]:
        return [(weight.dtype, weight._version) for weight in self._watched]
