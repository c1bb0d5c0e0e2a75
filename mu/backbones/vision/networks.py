"""Image networks by name, and what the library must know about their inside.

A network that `image_network` makes takes pixels in [0, 1] and normalises them itself, so mean and
standard deviation are in the checkpoint and attacks work in pixel space.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mu.backbones.vision import resnet_cifar
from mu.utils.errors import InputError
from mu.utils.weights import assign_weights

STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1201, 0.1231, 0.1052)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation of the pixels in [0, 1], per channel; `none` (0 and 1) needs no
entry.
"""

LIBRARIES = ("mu", "timm", "torchvision")
_OURS = {
    "resnet8_cifar": resnet_cifar.resnet8_cifar,
    "resnet20_cifar": resnet_cifar.resnet20_cifar,
    "resnet32_cifar": resnet_cifar.resnet32_cifar,
    "resnet44_cifar": resnet_cifar.resnet44_cifar,
    "resnet56_cifar": resnet_cifar.resnet56_cifar,
    "resnet18_cifar": resnet_cifar.resnet18_cifar,
}


class Normalize(nn.Module):
    """Pixels minus `mean` over `std`, per channel; both are buffers, so they travel with the
    weights.

    Args:
        mean: one number for each channel.
        std: one positive number for each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            given = f"mean {list(mean)} and std {list(std)}"
            raise InputError(
                f"{given} do not fit: give one mean and one positive std for each channel."
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` in [0, 1] to the same shape."""
        if x.shape[1] != len(self.mean):
            taken = f"the network takes {len(self.mean)}"
            raise InputError(
                f"the images have {x.shape[1]} channels and {taken}; set in_channels to "
                f"{x.shape[1]}."
            )
        return (x - self.mean[:, None, None]) / self.std[:, None, None]


class ImageNetwork(nn.Module):
    """A network (`body`) with its normalisation in front: pixels `[B, C, H, W]` in [0, 1] to the
    body's output.

    Args:
        body: the network on normalised images; its state dict is what people share.
        mean: see `Normalize`.
        std: see `Normalize`.
        input_size: `(C, H, W)` that the body was made for; None where any size will do. For
            information only: nothing is resized here.
    """

    def __init__(
        self,
        body: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.body = body
        self.input_size = tuple(input_size) if input_size is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Pixels in [0, 1] to logits `[B, K]`."""
        return self.body(self.normalize(x))


def resolve(name: str) -> tuple[str, str]:
    """The library (`mu`, `timm` or `torchvision`) and its own name for the network `name`.

    `timm:NAME` and `torchvision:NAME` are looked up there; a bare name in our networks, then timm,
    then torchvision.

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
    known = dict.fromkeys(prefix + entry for source in searched for entry in _names(source))
    close = difflib.get_close_matches(name, known, n=3)
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
    """A network on normalised images, newly initialised unless `pretrained`.

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
        # of many kinds in these libraries: a wrong option, a missing tag, a failed download
        cure = (
            "check the connection, or give a file in `weights`"
            if pretrained
            else "check its options"
        )
        given = f"options {options}" if options else "no options"
        raise InputError(
            f"network {name!r} could not be built with {given} ({error}); {cure}."
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
    """The constructor's options, with those that make the network return plain logits in train mode
    too.
    """
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


def statistics(
    mean: str | Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation, given as the name of a data set or as numbers.

    Args:
        mean: a key of `STATISTICS`, `none` or None (0 and 1), or one number for each channel.
        std: one number for each channel; goes with a numeric `mean` only.
        channels: number of channels.

    Raises:
        InputError: for an unknown name, or numbers that are not one for each channel.
    """
    if mean is None or isinstance(mean, str):
        if std is not None:
            raise InputError(f"std {list(std)} needs a mean in numbers beside it, not {mean!r}.")
        if mean in (None, "none"):
            return [0.0] * channels, [1.0] * channels
        if mean not in STATISTICS:
            raise InputError(
                f"no mean is known for {mean!r}; give numbers, or one of {', '.join(STATISTICS)}, "
                "none."
            )
        mean, std = STATISTICS[mean]
    if std is None or not len(mean) == len(std) == channels:
        given = f"mean {list(mean)} and std {None if std is None else list(std)}"
        raise InputError(
            f"{given} do not fit images of {channels} channels; give one number for each channel."
        )
    return [float(value) for value in mean], [float(value) for value in std]


def published_statistics(
    name: str, body: nn.Module
) -> tuple[list[float], list[float], tuple[int, int, int]]:
    """Mean, standard deviation and input size `(C, H, W)` that go with the published weights of
    `name`.

    Args:
        name: see `resolve`; of timm or torchvision.
        body: the network made from that name.
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
    """A network by name with its normalisation in front.

    Args:
        name: see `resolve`.
        num_classes: number of logits K.
        in_channels: channels C of the images.
        mean: see `statistics`; None takes what goes with the published weights when `pretrained`,
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


def assign_image_weights(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    path: object,
    *,
    keep_normalisation: bool,
) -> None:
    """Load what `mu.utils.weights.load_weights` has read, and the normalisation that came with it.

    Args:
        network: an `ImageNetwork`, or a network of the user's own (whose normalisation is its own
            affair).
        tensors: the body's weights.
        metadata: `mean`, `std`, `input_size`, each where the file has it.
        path: where they came from, for messages.
        keep_normalisation: leave the network's mean and std as they are, because the user chose
            them.

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
    new = None if keep_normalisation or mean is None or std is None else Normalize(mean, std)
    if new is not None and len(new.mean) != channels:
        raise InputError(
            f"{path} is for {len(new.mean)} channels and the network takes {channels}; set "
            "in_channels."
        )
    assign_weights(network, tensors, path)
    if new is not None:
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


def layers_in_order(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The weight layers of a network, from input to output, in the order of their definition.

    A weight layer is a convolution, a linear layer, or another module that owns a weight of two or
    more dimensions. Norms and scales (modules with one-dimensional weights) belong to the layer
    before them; tokens, position embeddings and the like, owned by a module that has weight layers
    inside, belong to the first layer inside it. So the last k layers are the last k entries, and
    every parameter is in exactly one entry.

    Returns:
        `(name of the weight layer, layer)`; the layer is that module itself, or an `nn.ModuleList`
        with the modules that belong to it.
    """
    names: list[str] = []
    groups: list[list[nn.Module]] = []
    waiting: list[nn.Module] = []
    for name, module in network.named_modules():
        own = list(module.parameters(recurse=False))
        if not own:
            continue
        if any(True for child in module.children() for _ in child.parameters()):
            waiting.append(nn.ParameterList(own))
        elif any(weight.ndim >= 2 for weight in own):
            names.append(name)
            groups.append([*waiting, module])
            waiting = []
        elif groups:
            groups[-1].append(module)
        else:
            waiting.append(module)
    if groups:
        groups[-1].extend(waiting)
    layers = [group[0] if len(group) == 1 else nn.ModuleList(group) for group in groups]
    return list(zip(names, layers, strict=True))


def head(network: nn.Module) -> tuple[str, nn.Linear]:
    """Path and module of the last linear layer, the one that gives the logits.

    Args:
        network: an `ImageNetwork` or any network; the path is relative to it.

    Raises:
        InputError: when the network does not end in one linear layer.
    """
    body, prefix = (network.body, "body.") if isinstance(network, ImageNetwork) else (network, "")
    get_classifier: Any = getattr(body, "get_classifier", None)  # timm's convention
    if get_classifier is not None:
        classifier = get_classifier()
        found = [(name, module) for name, module in body.named_modules() if module is classifier]
    else:
        found = [
            (name, module) for name, module in body.named_modules() if isinstance(module, nn.Linear)
        ]
    if not found or not isinstance(found[-1][1], nn.Linear):
        raise InputError(
            f"{type(body).__name__} does not end in one linear layer, so it has no head to change."
        )
    return prefix + found[-1][0], found[-1][1]
