"""What methods share that hold two models."""

from mu.core.module import UnlearningModule
from mu.utils.errors import InputError


def check_whole(module: UnlearningModule) -> None:
    """Refuse weights that are to be sharded over ranks: two models that share some cannot both
    divide them.

    Raises:
        InputError: says what to do.
    """
    if module.device_mesh is not None:
        raise InputError(
            f"{type(module).__name__} holds two models that share weights, which cannot be "
            "sharded; take the strategy ddp."
        )
