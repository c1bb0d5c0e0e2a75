"""Import of CompVis checkpoints, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file

from tests.support.compvis_files import Import, assert_same, others, states, whole
from tests.support.compvis_names import (
    State,
    average_names,
    deep_unet,
    open_clip_names,
    text_names,
    under,
    unet_names,
)
from tests.support.doubles import pipeline_folder, text_to_image


def mixed(**parts: State) -> dict[str, State]:
    """The base's weights, but for these parts."""
    return {**states(text_to_image()), **parts}


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
