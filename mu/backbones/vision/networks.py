"""Image networks by name, from mu, timm and torchvision.

A network that `image_network` makes takes pixels in [0, 1] and normalises them itself, so mean and
standard deviation are in the checkpoint and attacks work in pixel space.
"""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mu.backbones.vision import resnet_cifar
from mu.backbones.vision.layers import head
from mu.backbones.vision.normalisation import ImageNetwork, Normalize, statistics
from mu.utils.errors import InputError
from mu.utils.weights import assign_weights

LIBRARIES = ("mu", "timm", "torchvision")
_ROUNDING = 6e-4  # published means have three or four decimals
_OURS = {
    "resnet8_cifar": resnet_cifar.resnet8_cifar,
    "resnet20_cifar": resnet_cifar.resnet20_cifar,
    "resnet32_cifar": resnet_cifar.resnet32_cifar,
    "resnet44_cifar": resnet_cifar.resnet44_cifar,
    "resnet56_cifar": resnet_cifar.resnet56_cifar,
    "resnet18_cifar": resnet_cifar.resnet18_cifar,
}


def resolve(name: str) -> tuple[str, str]:
    """Library (`mu`, `timm` or `torchvision`) of a network, and its name in that library.

    `timm:NAME` and `torchvision:NAME` name the library; a bare name is looked up in our networks,
    then in timm, then in torchvision.

    Raises:
        InputError: for an unknown name, with the closest known ones.
    """
    library, colon, bare = name.rpartition(":")
    if colon and library not in LIBRARIES:
        raise InputError(
            f"{name!r} has an unknown source; before the colon stands one of "
            f"{', '.join(LIBRARIES)}."
        )
    searched = (library,) if colon else LIBRARIES
    for candidate in searched:
        if _has(candidate, bare):
            return candidate, bare
    prefix = f"{library}:" if colon else ""
    names = dict.fromkeys(prefix + entry for source in searched for entry in _names(source))
    close = difflib.get_close_matches(name, names, n=3)
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else "`timm.list_models()` lists most of them."
    )
    raise InputError(f"there is no network {name!r} in {', '.join(searched)}; {hint}")


def _names(library: str) -> list[str]:
    if library == "mu":
        return list(_OURS)
    if library == "timm":
        import timm

        return timm.list_models()
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def _has(library: str, name: str) -> bool:
    if library == "timm":
        import timm

        return timm.is_model(name)  # also with the tag of its published weights: resnet18.a1_in1k
    return name in _names(library)


def build(
    name: str, num_classes: int, in_channels: int = 3, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Network on normalised images, newly initialised unless `pretrained`.

    Args:
        name: see `resolve`.
        num_classes: number of logits K.
        in_channels: channels of the images.
        pretrained: load the weights that timm or torchvision publish, from the library's cache or
            by download.
        options: passed to the network's constructor (`width`, `drop_rate`, `img_size`, ...).

    Returns:
        A module that maps `[B, in_channels, H, W]` to logits `[B, num_classes]`.

    Raises:
        InputError: for an unknown name or option, or when published weights do not exist or cannot
            be fetched.
    """
    if num_classes < 1 or in_channels < 1:
        raise InputError(
            f"a network needs at least one class and one channel, not {num_classes} and "
            f"{in_channels}."
        )
    library, bare = resolve(name)
    if pretrained and library == "mu":
        raise InputError(
            f"no weights are published for {name!r}; unset pretrained, or give a file in `weights`."
        )
    try:
        if library == "mu":
            return _OURS[bare](num_classes=num_classes, in_channels=in_channels, **options)
        if library == "timm":
            import timm

            return timm.create_model(
                bare, pretrained, num_classes=num_classes, in_chans=in_channels, **options
            )
        return _torchvision(bare, num_classes, in_channels, pretrained, options)
    except InputError:
        raise
    except Exception as error:
        # these libraries raise various errors: a wrong option, a missing tag, a failed download
        cure = (
            "check the connection, or give a file in `weights`"
            if pretrained
            else "check its options"
        )
        given_options = f"options {options}" if options else "no options"
        raise InputError(
            f"network {name!r} could not be built with {given_options} ({error}); {cure}."
        ) from error


def _torchvision(
    name: str, num_classes: int, in_channels: int, pretrained: bool, options: Mapping[str, Any]
) -> nn.Module:
    import torchvision

    if not pretrained:
        options = torchvision_options(name, options)
        network = torchvision.models.get_model(
            name, weights=None, num_classes=num_classes, **options
        )
        return network if in_channels == 3 else _with_channels(network, in_channels)
    if in_channels != 3:
        raise InputError(
            f"torchvision's published weights take 3 channels, not {in_channels}; take timm's "
            "instead."
        )
    network = torchvision.models.get_model(name, weights="DEFAULT", **options)
    path, linear = head(network)
    if linear.out_features != num_classes:
        network.set_submodule(path, nn.Linear(linear.in_features, num_classes))
    return network


def torchvision_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor options with which torchvision's networks return logits in train mode too."""
    # these two return a tuple with the logits of auxiliary classifiers, unless they are built
    # without them
    plain = (
        {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    )
    return {**plain, **options}


def _with_channels(network: nn.Module, in_channels: int) -> nn.Module:
    """Replace the first convolution by a new one for `in_channels` channels."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            same = ("out_channels", "kernel_size", "stride", "padding", "dilation", "padding_mode")
            bias = module.bias is not None
            new = nn.Conv2d(in_channels, bias=bias, **{key: getattr(module, key) for key in same})
            nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
            network.set_submodule(name, new)
            return network
    raise InputError(
        f"{type(network).__name__} has no convolution that could take {in_channels} channels."
    )


def published_statistics(
    name: str, body: nn.Module
) -> tuple[list[float], list[float], tuple[int, int, int]]:
    """Mean, standard deviation and input size `(C, H, W)` of published weights.

    Args:
        name: name of timm or torchvision, see `resolve`.
        body: network made from that name.
    """
    library, bare = resolve(name)
    if library == "timm":
        from timm.data.config import resolve_model_data_config

        config = resolve_model_data_config(body)
        mean = list(config["mean"])
        std = list(config["std"])
        channels = int(getattr(body, "in_chans", len(mean)))
        # timm has adapted the stem to other channels, so every channel is an average one
        if channels != len(mean):
            mean = [sum(mean) / len(mean)] * channels
            std = [sum(std) / len(std)] * channels
        return mean, std, (channels, *config["input_size"][1:])
    import torchvision

    preset: Any = torchvision.models.get_model_weights(bare).DEFAULT.transforms()  # type: ignore[attr-defined]
    return list(preset.mean), list(preset.std), (3, preset.crop_size[0], preset.crop_size[0])


def image_network(
    name: str,
    num_classes: int,
    in_channels: int = 3,
    mean: str | Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pretrained: bool = False,
    **options: Any,
) -> ImageNetwork:
    """Network by name, with its normalisation as first layer.

    Args:
        name: see `resolve`.
        num_classes: number of logits K.
        in_channels: channels C of the images.
        mean: see `statistics`; None takes those of the published weights when `pretrained`,
            else 0 and 1.
        std: see `statistics`.
        pretrained: see `build`.
        options: passed to the network's constructor.

    Returns:
        A module that maps pixels `[B, C, H, W]` in [0, 1] to logits `[B, K]`.
    """
    body = build(name, num_classes, in_channels, pretrained, **options)
    input_size: Sequence[int] | None = None
    if pretrained:
        published_mean, published_std, input_size = published_statistics(name, body)
        if mean is None and std is None:
            mean = published_mean
            std = published_std
    size = options.get("img_size")
    if size is not None:
        input_size = (in_channels, size, size) if isinstance(size, int) else (in_channels, *size)
    return ImageNetwork(body, *statistics(mean, std, in_channels), input_size=input_size)


def class_names(metadata: Mapping[str, Any]) -> list[str]:
    """Class names in the metadata of weights, where they may be stored as JSON.

    Example:
        >>> class_names({"class_names": '["cat", "dog"]'})
        ['cat', 'dog']
    """
    names = metadata.get("class_names") or metadata.get("labels") or []
    try:
        return [str(name) for name in (json.loads(names) if isinstance(names, str) else names)]
    except json.JSONDecodeError:
        return []


def assign_image_weights(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    path: object,
    *,
    keep_normalisation: bool,
) -> None:
    """Assign weights and normalisation from `mu.utils.weights.load_weights` to a network.

    Args:
        network: an `ImageNetwork`, or a live network, which normalises pixels itself.
        tensors: the body's weights.
        metadata: `mean`, `std`, `input_size`, each where the file has it.
        path: their file, for messages.
        keep_normalisation: leave mean and std of the network unchanged, because the user chose
            them; those of the file must agree, up to rounding.

    Raises:
        InputError: when weights, or mean and std, do not fit the network; then nothing was changed.
    """
    if not isinstance(network, ImageNetwork):
        assign_weights(network, tensors, path)
        return
    normalize = network.normalize
    channels = len(network.normalize.mean)
    mean = metadata.get("mean")
    std = metadata.get("std")
    new = None if mean is None or std is None else Normalize(mean, std)
    if new is not None and len(new.mean) != channels:
        raise InputError(
            f"{path} is for {len(new.mean)} channels and the network takes {channels}; set "
            "in_channels."
        )
    if new is not None and keep_normalisation:
        _check_same_normalisation(new, normalize, path)
    assign_weights(network, tensors, path)
    if new is not None and not keep_normalisation:
        normalize.load_state_dict(new.state_dict())
    elif not keep_normalisation and bool(
        (normalize.mean == 0).all() and (normalize.std == 1).all()
    ):
        warnings.warn(
            f"{path} does not say how its images were normalised, so pixels enter the network as "
            "they are, in [0, 1]; set `mean` (the name of a data set, or numbers) if it was "
            "trained otherwise.",
            stacklevel=2,
        )
    if metadata.get("input_size") is not None:
        network.input_size = tuple(metadata["input_size"])


def _check_same_normalisation(stored: Normalize, chosen: Normalize, path: object) -> None:
    """Refuse a chosen mean and std that differ from those of the weights' file."""
    pairs = ((stored.mean, chosen.mean), (stored.std, chosen.std))
    if all(torch.allclose(a, b.to(a), rtol=0, atol=_ROUNDING) for a, b in pairs):
        return
    rounded = [[round(float(value), 4) for value in values] for pair in pairs for values in pair]
    raise InputError(
        f"{path} was trained with mean {rounded[0]} and std {rounded[2]}, and the configuration "
        f"sets mean {rounded[1]} and std {rounded[3]}; set mean and std to null to take those of "
        "the file."
    )
