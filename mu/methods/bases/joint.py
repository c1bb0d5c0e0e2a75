"""Several parts in one forward pass."""

from torch import Tensor, nn

from mu.backbones import Backbone
from mu.data.batch import Batch, concatenate


def predictions(backbone: Backbone, *parts: Batch | None) -> list[Tensor]:
    """The prediction of every part that is there, by one forward pass where that changes nothing.

    Batch norm in train mode would mix the parts' statistics. Sequences of unequal lengths are
    padded to the longest, so that their predictions may be wider than the parts, which the
    backbone's operations know.
    """
    present = [part for part in parts if part is not None]
    mixes = any(
        isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training
        for layer in backbone.modules()
    )
    if mixes or len(present) == 1 or not _stackable(*present):
        return [backbone.predict(part) for part in present]
    return list(
        backbone.predict(concatenate(*present)).split([len(part["index"]) for part in present])
    )


def _stackable(first: Batch, *others: Batch) -> bool:
    """Whether what all parts have can stand in one tensor: samples of one shape, or sequences."""
    for name, value in first.items():
        values = [value, *(other.get(name) for other in others)]
        if (
            all(isinstance(each, Tensor) and each.dim() for each in values)
            and value.dim() != 2
            and len({v.shape[1:] for v in values}) > 1
        ):
            return False
    return True
