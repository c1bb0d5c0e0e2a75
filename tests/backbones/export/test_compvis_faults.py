"""CompVis checkpoints that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mu.cli.main import main
from tests.support.compvis_files import Import, assert_same, others, whole
from tests.support.compvis_names import (
    State,
    average_names,
    unet_names,
)
from tests.support.doubles import pipeline_folder

TEXT_MODEL = "cond_stage_model.transformer.text_model"


def without(names: State, word: str) -> State:
    return {name: value for name, value in names.items() if word not in name}


def reshaped(names: State, word: str) -> State:
    return {name: torch.zeros(3) if word in name else value for name, value in names.items()}


CONV = "model.diffusion_model.input_blocks.0.0.weight"


BROKEN: dict[str, tuple[Callable[[State], State], str]] = {
    "a tensor of something else": (
        lambda names: names | {"control_model.zero.weight": torch.zeros(1)},
        "FILE has control_model.zero.weight, which belongs to no Stable Diffusion checkpoint; "
        "take out what is no weight of the UNet, the VAE or the text encoder.",
    ),
    "a layer that no UNet has": (
        lambda names: names | {"model.diffusion_model.input_blocks.1.7.weight": torch.zeros(1)},
        "the unet in FILE has input_blocks.1.7.weight, which no Stable Diffusion has; it may be "
        "another architecture.",
    ),
    "a layer that no VAE has": (
        lambda names: names | {"first_stage_model.encoder.extra.weight": torch.zeros(1)},
        "the vae in FILE has encoder.extra.weight, which no Stable Diffusion has; it may be "
        "another architecture.",
    ),
    "a layer that the base has not": (
        lambda names: names | {f"{TEXT_MODEL}.encoder.layers.9.mlp.fc1.bias": torch.zeros(1)},
        "the text_encoder in FILE does not fit --base BASE: it has encoder.layers.9.mlp.fc1.bias, "
        "which the base has not; give the base that it was made from.",
    ),
    "a lost tensor": (
        lambda names: without(names, CONV),
        "the unet in FILE does not fit --base BASE: it lacks conv_in.weight; give the base that "
        "it was made from.",
    ),
    "another width": (
        lambda names: reshaped(names, CONV),
        "the unet in FILE does not fit --base BASE: it holds conv_in.weight of shape [3] where "
        "the base has [8, 4, 3, 3]; give the base that it was made from.",
    ),
    "other noise levels": (
        lambda names: names | {"alphas_cumprod": names["alphas_cumprod"] ** 2},
        "FILE was trained with other noise levels than the base's scheduler has; give the base "
        "that it was made from.",
    ),
    "other latents": (
        lambda names: names | {"scale_factor": torch.tensor(0.13025)},
        "FILE scales latents by 0.13025 and the base by 0.18215; give the base that it was made "
        "from.",
    ),
    "an average of what is not there": (
        lambda names: (
            without(names, "model.diffusion_model.")
            | {"model_ema.diffusion_modelout0weight": torch.zeros(8)}
        ),
        "FILE holds a moving average (model_ema.*) without the weights that it is of, whose names "
        "it needs.",
    ),
    "a UNet named in two ways": (
        lambda names: names | {"unet.conv_in.bias": torch.zeros(8)},
        "FILE holds the unet in two ways of naming, so it is not clear which one is meant.",
    ),
    "two encoders": (
        lambda names: names | {"text_encoder.text_model.final_layer_norm.bias": torch.zeros(16)},
        "FILE holds two copies of final_layer_norm.bias that differ, so it is not clear which one "
        "is meant.",
    ),
    "no weights": (
        lambda names: {"betas": names["betas"]},
        "FILE holds no weights of a UNet, a VAE or a text encoder.",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_checkpoints_are_refused_in_one_sentence(
    tmp_path: Path, run: Import, case: str
) -> None:
    change, sentence = BROKEN[case]
    file = tmp_path / "model.safetensors"
    save_file(change(whole(others(1))), file)
    assert run(file) == (2, sentence.replace("FILE", str(file)).replace("BASE", pipeline_folder()))
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


class Callback:
    """An object, as Lightning's checkpoints hold them; it counts how often it is restored."""

    restored = 0

    def __init__(self) -> None:
        self.monitor = "loss"

    def __setstate__(self, state: dict[str, Any]) -> None:
        Callback.restored += 1


def refused(run: Import, tmp_path: Path, content: Any, *words: str, base: object = None) -> str:
    file = tmp_path / "model.ckpt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    code, line = run(file, *words, **({"base": base} if base else {}))
    assert code == 2
    assert not (tmp_path / "out").exists()
    return line.replace(str(file), "FILE")


def test_files_of_other_formats_are_refused(tmp_path: Path, run: Import) -> None:
    names = whole(others(1))
    assert refused(run, tmp_path, None).startswith("there are no weights at FILE")
    assert "cut off" in refused(run, tmp_path, b"PK\x03\x04 half a file")
    assert (
        refused(run, tmp_path, {"state_dict": names}, "--ema")
        == "FILE holds no moving average (model_ema.*); leave --ema out."
    )
    assert "there is no folder" in refused(run, tmp_path, names, base=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no model_index.json" in refused(run, tmp_path, names, base=tmp_path / "empty")


def test_objects_beside_the_weights_are_left_out(tmp_path: Path, run: Import) -> None:
    """Fails when a checkpoint of the first code, which has callbacks inside, is refused or makes
    them.
    """
    weights = others(1)
    content = {"state_dict": whole(weights), "callbacks": Callback()}
    torch.save(content, tmp_path / "model.ckpt")
    code, line = run(tmp_path / "model.ckpt")
    assert (code, Callback.restored) == (0, 0), line
    assert_same(tmp_path / "out", weights)


def test_average_of_another_unet_is_refused(tmp_path: Path, run: Import) -> None:
    names = whole(others(1))
    unet = unet_names(others(2)["unet"], 1)
    average = average_names(unet, unet)
    lost = next(iter(average))
    fault = "the moving average in FILE is not of its UNet: it"
    assert refused(run, tmp_path, names | without(average, lost), "--ema").startswith(
        f"{fault} lacks"
    )
    more = average | {"model_ema.diffusion_modelmore": torch.zeros(1)}
    assert refused(run, tmp_path, names | more, "--ema") == f"{fault} has diffusion_modelmore."


def test_nothing_is_overwritten(tmp_path: Path, run: Import) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("three years")
    code, line = run(tmp_path / "model.ckpt")
    assert (
        code == 2
        and line
        == f"{tmp_path / 'out'} exists already and is not an empty folder; choose another, or "
        "remove it first."
    )


def test_missing_command_arguments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "a.ckpt", "out"]) == 2
    assert capsys.readouterr().err.startswith("mu: mu import needs --base: a pipeline")
