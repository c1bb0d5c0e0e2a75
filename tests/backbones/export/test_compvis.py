"""Import of CompVis checkpoints: bit for bit, by a writer of their names that shares nothing with
the reader; and every refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file

from mu.backbones import TextToImage
from mu.cli.main import main
from tests.support.compvis_names import (
    State,
    average_names,
    deep_unet,
    open_clip_names,
    text_names,
    under,
    unet_names,
    vae_names,
)
from tests.support.doubles import STEPS, pipeline_folder, text_to_image

PARTS = ("unet", "vae", "text_encoder")
TEXT_MODEL = "cond_stage_model.transformer.text_model"


# ---- models to write -----------------------------------------------------------------------------


def states(model: Any) -> dict[str, State]:
    return {
        part: {
            name: value.detach().clone()
            for name, value in getattr(model, part).state_dict().items()
        }
        for part in PARTS
    }


def others(seed: int, base: str | None = None) -> dict[str, State]:
    """Weights of the same shapes, all of them different."""
    generator = torch.Generator().manual_seed(seed)
    return {
        part: {name: torch.randn(value.shape, generator=generator) for name, value in state.items()}
        for part, state in states(TextToImage(base or pipeline_folder())).items()
    }


def whole(weights: dict[str, State], layers: int = 1, blocks: int = 2) -> State:
    """A checkpoint as CompVis' code saves it, with buffers of the schedule."""
    model = text_to_image()
    return {
        **under("model.diffusion_model.", unet_names(weights["unet"], layers)),
        **under("first_stage_model.", vae_names(weights["vae"], blocks)),
        **under("cond_stage_model.transformer.", text_names(weights["text_encoder"])),
        "alphas_cumprod": model.alphas_cumprod.clone(),
        "betas": torch.zeros(STEPS),
        "scale_factor": torch.tensor(0.18215),
    }


Import = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Import:
    """`mu import FILE tmp_path/out --base ...`: exit code, and the one line that it says."""

    def call(file: object, *words: object, base: object = pipeline_folder()) -> tuple[int, str]:
        capsys.readouterr()
        code = main(
            ["import", str(file), str(tmp_path / "out"), "--base", str(base), *map(str, words)]
        )
        heard = capsys.readouterr()
        lines = [line for line in (heard.out + heard.err).strip().splitlines() if line]
        assert len(lines) == 1 and "Traceback" not in heard.err, heard
        return code, lines[0].removeprefix("mu: ")

    return call


def assert_same(folder: Path, wanted: dict[str, State]) -> None:
    imported = states(TextToImage(str(folder)))
    for part in PARTS:
        assert imported[part].keys() == wanted[part].keys()
        assert [
            name
            for name, value in wanted[part].items()
            if not torch.equal(value, imported[part][name])
        ] == [], part


def mixed(**parts: State) -> dict[str, State]:
    """The base's weights, but for these parts."""
    return {**states(text_to_image()), **parts}


# ---- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ckpt", "bare.pt", "safetensors"])
def test_a_whole_checkpoint_bit_for_bit(tmp_path: Path, run: Import, kind: str) -> None:
    weights = others(1)
    file = tmp_path / f"model.{kind}"
    if kind == "safetensors":
        save_file(whole(weights), file)
    else:
        torch.save(
            {"state_dict": whole(weights), "global_step": 5} if kind == "ckpt" else whole(weights),
            file,
        )
    assert run(file) == (
        0,
        f"{tmp_path / 'out'}: unet, vae, text_encoder from {file.name}; tokenizer, scheduler from "
        f"{pipeline_folder()}",
    )
    assert_same(tmp_path / "out", weights)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert torch.equal(pipeline.unet.conv_in.weight, weights["unet"]["conv_in.weight"])
    assert "unet, vae, text_encoder from" in (tmp_path / "out" / "README.md").read_text()


def test_blocks_as_in_stable_diffusion(tmp_path: Path, run: Import) -> None:
    """Two layers a block, three levels of attention, so that input block 4 is layer 0 of down block
    1; and what else the base decides.
    """
    pipeline = text_to_image().pipeline()
    pipeline.unet = deep_unet()
    pipeline.scheduler = PNDMScheduler.from_config(pipeline.scheduler.config, skip_prk_steps=True)
    pipeline.save_pretrained(tmp_path / "base")
    weights = others(1, str(tmp_path / "base"))
    names = whole(weights, layers=2)
    for compvis, diffusers in (
        ("input_blocks.4.1", "down_blocks.1.attentions.0"),
        ("input_blocks.7.1", "down_blocks.2.attentions.0"),
        ("output_blocks.6.1", "up_blocks.2.attentions.0"),
        ("output_blocks.8.1", "up_blocks.2.attentions.2"),
    ):
        key = "transformer_blocks.0.attn2.to_q.weight"
        assert torch.equal(
            names[f"model.diffusion_model.{compvis}.{key}"], weights["unet"][f"{diffusers}.{key}"]
        )
    save_file(names, tmp_path / "model.safetensors")
    assert run(tmp_path / "model.safetensors", base=tmp_path / "base")[0] == 0
    assert_same(tmp_path / "out", weights)
    scheduler = StableDiffusionPipeline.from_pretrained(tmp_path / "out").scheduler
    assert isinstance(scheduler, PNDMScheduler) and scheduler.config["skip_prk_steps"] is True


def test_the_moving_average_is_a_choice_that_must_be_made(tmp_path: Path, run: Import) -> None:
    """Mutation: either as a default. Whoever takes SalUn's average evaluates the model before
    unlearning.
    """
    trained = others(1)
    average = others(2)
    names = whole(trained)
    unet = unet_names(trained["unet"], 1)
    averaged = unet_names(average["unet"], 1)
    torch.save({"state_dict": names | average_names(unet, averaged)}, tmp_path / "salun.ckpt")
    file = tmp_path / "salun.ckpt"
    assert run(file) == (
        2,
        f"{file} holds two copies of the UNet, the trained weights and their moving average "
        "(model_ema.*); say which to `mu import` with --no-ema or --ema. (In SalUn's "
        "released files the average is the original model, so those need --no-ema.)",
    )
    assert not (tmp_path / "out").exists()
    code, line = run(file, "--no-ema")
    assert code == 0 and "unet (the trained weights), vae, text_encoder from salun.ckpt" in line
    assert_same(tmp_path / "out", trained)
    (tmp_path / "out").rename(tmp_path / "trained")
    code, line = run(file, "--ema")
    assert code == 0 and "unet (the moving average)" in line
    assert_same(tmp_path / "out", {**trained, "unet": average["unet"]})


UNETS: dict[str, Callable[[State], State]] = {
    "prefixed": lambda state: under("model.diffusion_model.", unet_names(state, 1)),
    "bare": lambda state: unet_names(state, 1),
    "diffusers": lambda state: state,
    "as mu names it": lambda state: under("unet.", state),
}


@pytest.mark.parametrize("form", UNETS)
def test_a_unet_alone(tmp_path: Path, run: Import, form: str) -> None:
    weights = others(1)["unet"]
    torch.save(UNETS[form](weights), tmp_path / "unet.pt")
    code, line = run(tmp_path / "unet.pt")
    assert (code, line) == (
        0,
        f"{tmp_path / 'out'}: unet from unet.pt; vae, text_encoder, tokenizer, scheduler from "
        f"{pipeline_folder()}",
    )
    assert_same(tmp_path / "out", mixed(unet=weights))


def test_edited_tensors_of_a_unet(tmp_path: Path, run: Import) -> None:
    """As ESD's rewrite publishes them."""
    edited = {name: value for name, value in others(1)["unet"].items() if "attn2" in name}
    save_file(edited, tmp_path / "esd.safetensors")
    code, line = run(tmp_path / "esd.safetensors")
    count = len(text_to_image().unet.state_dict())
    assert code == 0 and f"unet ({len(edited)} of its {count} tensors) from esd.safetensors" in line
    assert_same(tmp_path / "out", mixed(unet={**states(text_to_image())["unet"], **edited}))


def wrapper(state: State) -> State:
    """AdvUnlearn's module holds the encoder, and its parts once more."""
    plain = {name.removeprefix("text_model."): value for name, value in state.items()}
    ids = {
        "text_encoder.text_model.embeddings.position_ids": torch.arange(16)[None],
        "embedding.position_ids": torch.arange(16)[None],
    }
    return {
        **under("text_encoder.text_model.", plain),
        **ids,
        **{name.replace("embeddings.", "embedding.", 1): value for name, value in plain.items()},
    }


TEXTS: dict[str, Callable[[State], State]] = {
    "AdvUnlearn": wrapper,
    "transformers": text_names,
    "transformers from 5.6 on": dict,
    "as mu names it": lambda state: under("text_encoder.", state),
    "CompVis": lambda state: under("cond_stage_model.transformer.", text_names(state)),
    "OpenCLIP": lambda state: under("cond_stage_model.model.", open_clip_names(state)),
}


@pytest.mark.parametrize("form", TEXTS)
def test_a_text_encoder_alone(tmp_path: Path, run: Import, form: str) -> None:
    weights = others(1)["text_encoder"]
    torch.save(TEXTS[form](weights), tmp_path / "text.pt")
    code, line = run(tmp_path / "text.pt")
    assert (code, line) == (
        0,
        f"{tmp_path / 'out'}: text_encoder from text.pt; unet, vae, tokenizer, scheduler from "
        f"{pipeline_folder()}",
    )
    assert_same(tmp_path / "out", mixed(text_encoder=weights))


def test_half_precision_is_kept_to_the_bit(tmp_path: Path, run: Import) -> None:
    weights = {
        part: {name: value.half() for name, value in state.items()}
        for part, state in others(1).items()
    }
    save_file(whole(weights), tmp_path / "half.safetensors")
    assert run(tmp_path / "half.safetensors")[0] == 0
    assert_same(
        tmp_path / "out",
        {
            part: {name: value.float() for name, value in state.items()}
            for part, state in weights.items()
        },
    )


# ---- refusals ------------------------------------------------------------------------------------


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
def test_what_does_not_fit_is_refused_in_one_sentence(
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


def test_files_that_are_not_read(tmp_path: Path, run: Import) -> None:
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


def test_an_average_that_is_not_of_its_unet(tmp_path: Path, run: Import) -> None:
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


def test_words_that_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "a.ckpt", "out"]) == 2
    assert capsys.readouterr().err.startswith("mu: mu import needs --base: a pipeline")
