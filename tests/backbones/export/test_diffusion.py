"""Export of diffusion models as folders of diffusers, with their card, and as adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

import mu as package
from mu.backbones import ClassConditionalDiffusion, Ensemble, LoRA, TextToImage
from mu.backbones.export import export
from mu.cli.main import main
from mu.methods import FineTune
from mu.utils.errors import InputError
from tests.support.diffusion_exports import PROMPTS, RESULTS, metadata, moved, same, state, usage
from tests.support.doubles import class_conditional, pictures, pipeline_folder, text_to_image
from tests.support.helpers import classifier, fit


def drawn(pipeline: Any, guidance_scale: float = 2.0) -> Tensor:
    """Images `[2, 3, 8, 8]` of a plain pipeline, seeds 5 and 6."""
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    images = pipeline(
        PROMPTS,
        num_inference_steps=3,
        guidance_scale=guidance_scale,
        generator=generators,
        output_type="np",
        height=8,
        width=8,
    )
    return torch.from_numpy(images.images).permute(0, 3, 1, 2)


def test_a_folder_is_a_pipeline_of_diffusers(tmp_path: Path) -> None:
    backbone = moved("xattn+text_encoder")
    folder = export(backbone, tmp_path / "model", results=RESULTS)
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    for component in ("unet", "vae", "text_encoder"):
        assert same(state(getattr(pipeline, component)), state(getattr(backbone, component))), (
            component
        )
    torch.testing.assert_close(
        drawn(pipeline), backbone.generate_prompts(PROMPTS, [5, 6]), rtol=1e-4, atol=1e-5
    )
    again = TextToImage(str(folder), sampler=backbone.sampler).eval()
    assert same(state(again), state(backbone))
    assert torch.equal(
        again.generate_prompts(PROMPTS, [5, 6]), backbone.generate_prompts(PROMPTS, [5, 6])
    )
    torch.testing.assert_close(drawn(usage(folder)["pipeline"]), drawn(pipeline))


def test_card_names_method_task_and_results(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    folder = export(
        moved(),
        tmp_path / "model",
        results=RESULTS,
        license="creativeml-openrail-m",
        title="No circles",
    )
    card = ModelCard.load(folder / "README.md")
    assert (card.data.library_name, card.data.license, card.data.pipeline_tag) == (
        "diffusers",
        "creativeml-openrail-m",
        "text-to-image",
    )
    assert (
        card.data.tags == ["text-to-image", "machine-unlearning", "ESD"]
        and card.data.base_model is None
    )
    assert (
        "# No circles" in card.text
        and "(forgotten: circle)" in card.text
        and "DDIM, 3 steps, guidance 2" in card.text
    )
    # there is none, so no column for it
    assert "| UA | forget | 97.5 |\n" in card.text and "oracle" not in card.text


def test_no_file_names_a_folder_of_this_machine(tmp_path: Path) -> None:
    folder = export(moved(), tmp_path / "model")
    for file in folder.rglob("*.json"):
        assert pipeline_folder() not in file.read_text(), file


def test_adapters_are_folded_in_on_a_copy(tmp_path: Path) -> None:
    backbone = moved("xattn+text_encoder", lora=LoRA(r=2))
    before = state(backbone)
    expected = backbone.generate_prompts(PROMPTS, [5, 6])
    folder = export(backbone, tmp_path / "model")
    assert same(state(backbone), before)
    plain = TextToImage(str(folder), sampler=backbone.sampler).eval()
    assert not [name for name in plain.state_dict() if "lora" in name or "base_layer" in name]
    torch.testing.assert_close(
        plain.generate_prompts(PROMPTS, [5, 6]), expected, rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(
        text_to_image().eval().generate_prompts(PROMPTS, [5, 6]), expected, atol=1e-3
    )


def test_a_model_of_a_hub_is_named_as_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import ModelCard

    backbone = moved()
    monkeypatch.setattr(backbone, "model", "CompVis/stable-diffusion-v1-4")
    assert (
        ModelCard.load(export(backbone, tmp_path / "model") / "README.md").data.base_model
        == "CompVis/stable-diffusion-v1-4"
    )


@pytest.mark.parametrize("part", ["xattn", "text_encoder:1", "xattn+text_encoder"])
def test_adapters_load_in_diffusers(tmp_path: Path, part: str) -> None:
    backbone = moved(part, lora=LoRA(r=2, lora_alpha=6.0))
    folder = export(backbone, tmp_path / "adapter", "adapter")
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "pytorch_lora_weights.safetensors",
    ]
    pipeline = usage(folder)["pipeline"]
    torch.testing.assert_close(
        drawn(pipeline), backbone.generate_prompts(PROMPTS, [5, 6]), rtol=1e-4, atol=1e-5
    )


def test_a_class_conditional_model_is_read_by_the_backbone(tmp_path: Path) -> None:
    backbone = class_conditional(
        sampler=None, scheduler={"num_train_timesteps": 50, "beta_schedule": "squaredcos_cap_v2"}
    ).eval()
    folder = export(backbone, tmp_path / "model", results=RESULTS)
    assert sorted(entry.name for entry in folder.iterdir()) == ["README.md", "scheduler", "unet"]
    again = ClassConditionalDiffusion(str(folder)).eval()
    assert same(state(again), state(backbone))
    assert torch.equal(again.alphas_cumprod, backbone.alphas_cumprod) and again.num_classes == 10
    condition = backbone.labels([0, 1, 2, 3])
    assert torch.equal(usage(folder)["images"], backbone.generate(condition, [0, 1, 2, 3]))
    assert "| UA | forget | 97.5 |" in (folder / "README.md").read_text()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a fit that began from weights of its own."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    folder = tmp_path_factory.mktemp("runs")
    begun = export(moved("noxattn"), folder / "original", "edited")
    task = pictures()
    module = FineTune(
        text_to_image(part="xattn-strict", weights=str(begun)),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.5),
    )
    keep = ModelCheckpoint(
        dirpath=folder / "run" / "checkpoints", filename="last", enable_version_counter=False
    )
    fit(module, task, 1, callbacks=[keep], default_root_dir=str(folder / "run"))
    task.split.save(folder / "run" / "split.json")
    return folder / "run"


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    heard = capsys.readouterr()
    assert "Traceback" not in heard.err and len(heard.err.strip().splitlines()) <= 1, heard.err
    return code, (heard.err or heard.out).strip()


def test_run_folder_is_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mutation: compared with the weights that the run began from, by which the base model's hash
    would not be that of its folder.
    """
    served = package.load(run).served()
    assert said(capsys, "export", run, tmp_path / "whole", "--license", "mit") == (
        0,
        str(tmp_path / "whole"),
    )
    assert same(state(TextToImage(str(tmp_path / "whole"))), state(served))
    assert said(capsys, "export", run, tmp_path / "edited", "--edited") == (
        0,
        str(tmp_path / "edited"),
    )
    assert same(state(text_to_image(weights=str(tmp_path / "edited"))), state(served))
    facts = metadata(tmp_path / "edited")
    assert (facts["method"], facts["task"], facts["part"]) == (
        "FineTune",
        "pictures",
        "xattn-strict",
    )
    assert facts["concept"] == "circle" and facts["base_hash"] == text_to_image().base_hash()
    assert (
        "unlearned by `FineTune` on the task `pictures`"
        in (tmp_path / "edited" / "README.md").read_text()
    )


def test_what_cannot_be_exported_is_said_in_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("three years")
    full = tmp_path / "full"
    for words, sentence in (
        (
            (run, tmp_path / "x", "--adapter"),
            "mu: the model has no adapters, because it has no lora; export it whole, or with "
            "--edited its edited tensors.",
        ),
        (
            (run, tmp_path / "x", "--adapter", "--edited"),
            "mu: mu export writes one form; leave out --edited or --adapter.",
        ),
        (
            (run, full),
            f"mu: {full} exists already and is not an empty folder; choose another, or remove it "
            "first.",
        ),
    ):
        assert said(capsys, "export", *words) == (2, sentence)
    assert [entry.name for entry in tmp_path.iterdir()] == ["full"]


def test_export_form_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="a Classifier is exported whole; --edited is for text-to-image models"
    ):
        export(classifier(), tmp_path / "x", "edited")
    with pytest.raises(
        InputError, match="a ClassConditionalDiffusion is exported whole; --adapter is for"
    ):
        export(class_conditional(), tmp_path / "x", "adapter")
    with pytest.raises(
        InputError,
        match=r"Ensemble has no form that other libraries read; load the run with mu\.load",
    ):
        export(Ensemble([classifier()]), tmp_path / "x")
    with pytest.raises(InputError, match=r"no tensor differs from those of .*mu-double"):
        export(text_to_image(), tmp_path / "x", "edited")
    live = TextToImage(pipeline=text_to_image().pipeline(), part="xattn")
    with pytest.raises(
        InputError, match="built from a live pipeline, so its original cannot be read again"
    ):
        export(live, tmp_path / "x", "edited")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **named: Any) -> str:
        raise OSError("disk full")

    monkeypatch.setattr("mu.backbones.export.diffusion._card", broken)
    for form in ("model", "edited"):
        with pytest.raises(OSError, match="disk full"):
            export(moved(), tmp_path / "model", form)
    assert not list(tmp_path.iterdir())
