"""Safe loading of weights from files, and assignment to a network.

Nothing is unpickled: safetensors files hold no code, and torch's files are read with
`weights_only=True`. Names are those of the bare network, without the prefixes of wrappers
(DataParallel, torch.compile, Lightning, ours).
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mu.utils.errors import InputError
from mu.utils.files import read_json
from mu.utils.run_config import check_belongs, check_checksums
from mu.utils.stand_ins import StandIn, foreign_path, load_with_stand_ins
from mu.utils.weight_checks import check_values, name_list

_WRAPPERS = ("module.", "_orig_mod.", "model.", "body.")
_NESTED = ("state_dict", "model_state_dict", "model")
_NETWORK = "backbone.network."
_BACKBONE = "backbone."
_FROM_HUB = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_INDEX = ".index.json"
_RECORDED = ("recipe", "train_split", "base")
_IN_FOLDER = (*_FROM_HUB, "checkpoints/model.safetensors", "checkpoints/last.ckpt", "last.ckpt")


def load_weights(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and metadata of a file or folder.

    Args:
        path: a safetensors file; a torch file with a state dict, bare or under `state_dict`,
            `model_state_dict` or `model`; a checkpoint of a run, of which the backbone's network is
            taken; the index of a sharded model (`model.safetensors.index.json`); or a folder (a
            run, an export, a download from the hub) that has one of these.

    Returns:
        The tensors on the CPU, by the bare network's names, and the metadata: `mean` and `std`
        (lists of float, one for each channel), `input_size` ([C, H, W]), `num_classes`,
        `class_names`, `architecture` and further entries, each only where the file has it.

    Raises:
        InputError: when there is no such file, it is cut off or of another kind, or it needs Python
            objects.
    """
    path = Path(path)
    file = _find(path)
    run = file.parent.parent if file.parent.name == "checkpoints" else file.parent
    metadata = _folder_metadata(file.parent) if file.name in _FROM_HUB else {}
    tensors: dict[str, Tensor] = {}
    for part in _shards(file) if file.name.endswith(_INDEX) else [file]:
        shard, stored = _read_file(part, run)
        tensors |= shard
        metadata |= stored
    tensors, normalisation = unwrap_names(_backbone_tensors(tensors))
    if not tensors:
        raise InputError(f"{file} holds no weights.")
    metadata |= {
        name: [float(value) for value in buffer.flatten()] for name, buffer in normalisation.items()
    }
    return tensors, metadata


def _read_file(file: Path, run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    checkpoint = read_checkpoint(file)
    # a run of ours records its recipe, its data and the hash of what it left out
    record = checkpoint.get("mu")
    stored = record if isinstance(record, dict) else {}
    if stored:
        check_checksums(file)
        check_belongs(run, file, stored)
    metadata = {name: stored[name] for name in _RECORDED if stored.get(name)}
    metadata |= stored.get("data") or {}
    return state_dict_of(checkpoint, file), metadata


def _shards(index: Path) -> list[Path]:
    """Files of a sharded model, which an index names.

    Raises:
        InputError: when the index is damaged, or one of its files is not there.
    """
    content = read_json(index)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        raise InputError(f"{index} has no weight_map, so it is no index of weights.")
    files = [index.parent / str(name) for name in sorted(set(map(str, names.values())))]
    absent = [file for file in files if file.parent != index.parent or not file.is_file()]
    if absent:
        raise InputError(
            f"{index} names {absent[0].name}, which is not beside it; copy all files of the model."
        )
    return files


def read_checkpoint(file: Path | str) -> dict[str, Any]:
    """Content of a torch file that holds a dict; see `read_torch_file`.

    Raises:
        InputError: when the file cannot be read, or holds another type.
    """
    loaded = read_torch_file(file)
    if isinstance(loaded, StandIn):
        raise InputError(
            f"{file} is a pickle that needs the Python object {loaded.path}, and nothing is "
            "unpickled from a path; save the weights alone, with torch.save(model.state_dict(), "
            "...) or as safetensors."
        )
    if not isinstance(loaded, dict):
        raise InputError(
            f"{file} holds a {type(loaded).__name__} where a dict of weights is expected."
        )
    return loaded


def read_torch_file(file: Path | str) -> Any:
    """Content of a torch file (`.ckpt`, `.pt`, `.pth`, `.bin`): plain data, tensors on the CPU.

    Objects of foreign classes are replaced by inert `StandIn`s.

    Raises:
        InputError: when the file is missing, cut off, or needs functions to be called.
    """
    needs = None
    try:
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            needs = foreign_path(error)
            if needs is None:
                raise
            loaded = load_with_stand_ins(file)
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL (\S+)", str(error))
        needs = match[1] if match else needs
        if needs is None:
            raise InputError(f"{file} is not a file of weights, or it is cut off.") from error
        raise InputError(
            f"{file} is a pickle that needs the Python object {needs}, and nothing is unpickled "
            "from a path; save the weights alone, with torch.save(model.state_dict(), ...) or as "
            "safetensors."
        ) from error
    except FileNotFoundError:
        raise InputError(f"there is no file {file}.") from None
    except Exception as error:
        # torch answers damaged bytes with errors of any kind, IndexError and KeyError too
        reason = str(error).splitlines()[0] if str(error) else "the file is empty"
        if "PytorchStreamReader" in reason:
            reason = "its archive is damaged"
        raise InputError(
            f"{file} cannot be read as weights ({reason}); it may be cut off."
        ) from error
    return loaded


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(
            f"there are no weights at {path}; give a file (.safetensors, .pt, .ckpt) or a run "
            "folder."
        )
    for name in _IN_FOLDER:
        if (path / name).is_file():
            return path / name
    checkpoints = sorted(path.glob("checkpoints/*.ckpt"))
    if len(checkpoints) == 1:
        return checkpoints[0]
    cure = (
        f"it has {len(checkpoints)} checkpoints, so name one"
        if checkpoints
        else "it may not be a finished run"
    )
    raise InputError(f"folder {path} has none of {', '.join(_IN_FOLDER)}; {cure}.")


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            metadata: dict[str, Any] = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file} is not a whole safetensors file ({error}); it may be cut off, or of another "
            "kind under this name."
        ) from error
    for name in {"mean", "std", "input_size", "num_classes"} & metadata.keys():
        metadata[name] = _parsed(name, metadata[name], file)
    return tensors, metadata


def _parsed(name: str, text: str, file: Path) -> Any:
    """Number or list of numbers from the text that safetensors stores."""
    try:
        value = json.loads(text)
        if name == "num_classes":
            return int(value)
        return [int(entry) if name == "input_size" else float(entry) for entry in value]
    except (ValueError, TypeError) as error:
        expected = "a number" if name == "num_classes" else "a list of numbers"
        raise InputError(
            f"the metadata of {file} have {name} = {text!r}, which is not {expected}."
        ) from error


def _folder_metadata(folder: Path) -> dict[str, Any]:
    """Metadata from `pretrained_cfg` of the config.json beside the weights (timm, the hub)."""
    if not (folder / "config.json").is_file():
        return {}
    config = read_json(folder / "config.json")
    published = config.get("pretrained_cfg") if isinstance(config, dict) else None
    if not isinstance(published, dict):
        return {}
    metadata = {
        key: published[key]
        for key in ("mean", "std", "input_size")
        if isinstance(published.get(key), list)
    }
    if isinstance(config.get("label_names"), list):
        metadata["class_names"] = config["label_names"]
    return metadata | {key: config[key] for key in ("architecture", "num_classes") if key in config}


def state_dict_of(loaded: dict[str, Any], file: Path) -> dict[str, Tensor]:
    """State dict of a torch file's content, bare or nested, without stand-ins.

    Raises:
        InputError: an entry is no tensor.
    """
    for name in _NESTED:
        if isinstance(loaded.get(name), dict):
            loaded = loaded[name]
            break
    loaded = {name: value for name, value in loaded.items() if not isinstance(value, StandIn)}
    odd = [
        name
        for name, value in loaded.items()
        if not isinstance(name, str) or not isinstance(value, Tensor)
    ]
    if odd:
        type_name = type(loaded[odd[0]]).__name__
        raise InputError(
            f"{file} is not a state dict: its entry {odd[0]!r} is of type {type_name}, not a "
            "tensor."
        )
    return dict(loaded)


def _backbone_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the backbone in a checkpoint, without a frozen reference.

    Of a run's checkpoint, these are the backbone's network or all of its components.
    """
    for prefix in (_NETWORK, _BACKBONE):
        prefixed = {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }
        if prefixed:
            return prefixed
    return {name: value for name, value in tensors.items() if not name.startswith("reference.")}


def unwrap_names(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors by the names of the bare network, without prefixes of wrappers.

    Args:
        tensors: a state dict.

    Returns:
        The tensors without prefixes, and separately the normalisation: `mean` and `std`, where the
        state dict has them.
    """
    bare = dict(tensors)
    normalisation = {}
    stripped = True
    while stripped and bare:
        statistics = [name for name in ("mean", "std") if f"normalize.{name}" in bare]
        normalisation |= {name: bare.pop(f"normalize.{name}") for name in statistics}
        stripped = False
        for prefix in _WRAPPERS:
            if bare and all(name.startswith(prefix) for name in bare):
                bare = {name.removeprefix(prefix): tensor for name, tensor in bare.items()}
                stripped = True
    return bare, normalisation


def assign_weights(
    network: nn.Module, tensors: Mapping[str, Tensor], path: object, strict: bool = True
) -> list[str]:
    """Copy tensors into a network by name, in the network's dtype and on its device.

    Everything is checked before the first tensor is copied.

    Args:
        network: any module; wrappers around it (`ImageNetwork` too) do not matter, and its
            normalisation is left alone.
        tensors: tensors as from `load_weights`.
        path: their file, for messages.
        strict: refuse missing and unexpected names.

    Returns:
        Names of the network without a tensor (with `strict`, at most BatchNorm's step counters).

    Raises:
        InputError: for missing or unexpected names when `strict`; for a wrong shape, a boolean,
            integer or complex type, and values that are not finite always; and when no name fits.
    """
    state, _ = unwrap_names(network.state_dict())
    unwrapped, _ = unwrap_names(tensors)
    missing = [name for name in state if name not in unwrapped]
    # files from before torch 0.4 lack BatchNorm's step counters, which have no effect at the
    # default momentum
    absent = [name for name in missing if not name.endswith("num_batches_tracked")]
    unexpected = [name for name in unwrapped if name not in state]
    common = [name for name in state if name in unwrapped]
    misshaped = [name for name in common if state[name].shape != unwrapped[name].shape]
    if misshaped:
        raise InputError(_misshaped(network, state, unwrapped, misshaped, path))
    if (strict and (absent or unexpected)) or not common:
        faults = [f"lacks {name_list(absent)}"] if absent else []
        faults += [f"has {name_list(unexpected)}, which the network has not"] if unexpected else []
        fault = " and ".join(faults) or "is empty"
        raise InputError(
            f"{path} does not fit the network: it {fault}; check the network's name and options."
        )
    check_values({name: unwrapped[name] for name in common}, path, state)
    with torch.no_grad():
        for name in common:
            state[name].copy_(unwrapped[name])
    return missing


def _misshaped(
    network: nn.Module,
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    names: list[str],
    path: object,
) -> str:
    """Message about wrong shapes, with the argument to change for other classes or channels."""
    shapes = [
        f"{name} of shape {list(given[name].shape)} where the network has {list(own[name].shape)}"
        for name in names
    ]
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    cures = []
    for name in names:
        file_shape = given[name].shape
        ours = own[name].shape
        if linear and f"{linear[-1]}.weight".endswith(name) and file_shape[1:] == ours[1:]:
            cures.append(f"set num_classes to {file_shape[0]}")
        elif (
            name == next(iter(own))
            and len(file_shape) == len(ours) == 4
            and file_shape[0::2] == ours[0::2]
        ):
            cures.append(f"set in_channels to {file_shape[1]}")
    cure = " and ".join(cures) or "check the network's name and options"
    return f"{path} holds {name_list(shapes)}; {cure}."


def weights_hash(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """Hash of weights, independent of device and memory format, changed by any changed bit.

    Args:
        weights: a module (its parameters and saved buffers) or a state dict.

    Returns:
        16 hexadecimal digits of SHA-256 over names, dtypes, shapes and bytes, in the order of the
        sorted names.
    """
    tensors = weights.state_dict() if isinstance(weights, nn.Module) else weights
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
