"""One forward pass over forget and retain parts together."""

from torch import Tensor, nn

from mu.backbones import Backbone
from mu.data.batch import Batch, concatenate


def predictions(backbone: Backbone, *parts: Batch | None) -> list[Tensor]:
    """Predictions of several parts, by one forward pass where that gives the same values.

    With batch norm in train mode, which would mix the parts' statistics, and with samples of
    unequal shape, each part has a pass of its own. Sequences of unequal lengths are padded to the
    longest, so that their predictions may be of more positions than the part; the backbone's
    operations cut them.

    Args:
        backbone: the model.
        parts: batch parts; those that are None are left out.

    Returns:
        One prediction `[B, ...]` per part that is not None, in their order.
    """
    present = [part for part in parts if part is not None]
    mixes = any(
        isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training
        for layer in backbone.modules()
    )
    if mixes or len(present) == 1 or not _stackable(*present):
        return [backbone.predict(part) for part in present]
    sizes = [len(part["index"]) for part in present]
    return list(backbone.predict(concatenate(*present)).split(sizes))


def _stackable(first: Batch, *others: Batch) -> bool:
    """Whether the parts' common tensors can be concatenated: one shape per sample, or sequences."""
    for name, value in first.items():
        values = [value, *(other.get(name) for other in others)]
        tensors = all(isinstance(value, Tensor) and value.dim() for value in values)
        if tensors and value.dim() != 2 and len({value.shape[1:] for value in values}) > 1:
            return False
    return True
