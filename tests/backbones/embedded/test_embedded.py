"""What comes with mu: names, sizes, half precision, and (slow) that the models draw well."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mu.backbones import embedded as assets
from mu.cli.embed import LIMIT, size, write
from mu.evaluation.images.classifier_judge import ClassifierJudge, judge
from mu.evaluation.images.junk import junk_images
from mu.utils.errors import InputError

MODELS = (
    "authors",
    "authors_oracle",
    "digits",
    "judge_background",
    "judge_colour",
    "judge_digits",
    "judge_shape",
    "shapes",
)


def test_embedded_models_are_found_by_name() -> None:
    assert assets.names() == MODELS
    assert (assets.path("shapes") / "model_index.json").is_file()
    with pytest.raises(
        InputError,
        match="no model named 'cats' comes with mu; these do: authors, authors_oracle, digits",
    ):
        assets.path("cats")
    with pytest.raises(
        InputError,
        match="no judge of 'cats'; there are judges of shape, colour, background, digits",
    ):
        judge("cats")


def test_embedded_models_are_small_in_total() -> None:
    assert sum(size().values()) <= LIMIT == 11_000_000
    assert size()["authors"] + size()["authors_oracle"] <= 4_600_000


def test_weights_are_finite_half_precision_and_nothing_names_a_folder_of_this_machine() -> None:
    from safetensors.torch import load_file

    files = [file for name in MODELS for file in assets.path(name).rglob("*") if file.is_file()]
    for file in files:
        if file.suffix == ".safetensors":
            tensors = load_file(file)
            dtypes = {
                value.dtype
                for key, value in tensors.items()
                if not key.endswith(("num_batches_tracked", "position_ids"))
            }
            assert dtypes == {torch.float16}, file
            assert all(value.isfinite().all() for value in tensors.values()), file
        else:
            text = file.read_text(encoding="utf-8")
            assert "_name_or_path" not in text
            assert "/work" not in text
            if file.suffix == ".json":
                json.loads(text)
    assert not {file.suffix for file in files} & {".bin", ".pt", ".pkl", ".ckpt"}


def test_the_tokenizer_is_the_one_of_the_task() -> None:
    from mu.backbones import TextToImage
    from tasks.shapes.blank_model import captions, make_tokenizer

    shipped = TextToImage("embedded:shapes").tokenizer
    tokenizer = make_tokenizer()
    assert shipped.get_vocab() == tokenizer.get_vocab()
    assert shipped(captions(50)).input_ids == tokenizer(captions(50)).input_ids


def test_a_run_of_another_kind_is_not_shipped(tmp_path: Path) -> None:
    from mu.backbones import Regressor
    from mu.methods import Train
    from tests.support.helpers import diabetes, regressor, trainer

    module = Train(regressor())
    assert isinstance(module.backbone, Regressor)
    fitted = trainer(1)
    fitted.fit(module, diabetes())
    fitted.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="holds a Regressor"):
        write("other", str(tmp_path), [], home=tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_classifier_is_written_in_half_precision_with_the_names_of_its_classes(
    tmp_path: Path,
) -> None:
    from safetensors import safe_open

    from mu.methods import Train
    from tests.support.helpers import classifier, digits, trainer

    module = Train(classifier())
    fitted = trainer(1)
    fitted.fit(module, digits())
    fitted.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="has 2 names for the 10 classes"):
        write("judge", str(tmp_path), ["a", "b"], home=tmp_path / "home")
    assert not (tmp_path / "home").exists()
    folder = write("judge", str(tmp_path), list("0123456789"), home=tmp_path / "home")
    with safe_open(folder / "model.safetensors", framework="pt") as opened:
        assert json.loads(opened.metadata()["class_names"]) == list("0123456789")
        for name in opened.keys():  # noqa: SIM118 - not a mapping
            stored = opened.get_tensor(name)
            state = module.backbone.network.state_dict()[name]
            assert torch.equal(stored, state.half() if state.is_floating_point() else state), name
    assert size(tmp_path / "home") == {"judge": (folder / "model.safetensors").stat().st_size}


def test_a_class_conditional_model_is_written_as_diffusers_saves_it(tmp_path: Path) -> None:
    from mu.backbones import ClassConditionalDiffusion
    from mu.methods import Train
    from tests.support.doubles import class_conditional
    from tests.support.helpers import digits, trainer

    module = Train(class_conditional())
    fitted = trainer(1)
    fitted.fit(module, digits())
    fitted.save_checkpoint(tmp_path / "last.ckpt")
    folder = write("small", str(tmp_path), [], home=tmp_path / "home")
    again = ClassConditionalDiffusion(str(folder))
    for name, value in module.backbone.unet.state_dict().items():
        assert torch.equal(again.unet.state_dict()[name], value.half().float()), name
    assert torch.equal(again.alphas_cumprod, module.backbone.alphas_cumprod)
    assert again.prediction_type == module.backbone.prediction_type
    assert all(
        oct(file.stat().st_mode)[-3:] == "644" for file in folder.rglob("*") if file.is_file()
    )


def test_a_judge_says_what_its_logits_stand_for_and_knows_real_pictures() -> None:
    from tasks.shapes.task import NAMES, attributes, pictures

    indices = 900_000 + np.arange(300)  # never trained on
    images = pictures(indices)["image"].float() / 255
    drawn = attributes(indices)
    for attribute, names in NAMES.items():
        network = judge(attribute)
        assert tuple(network.weights_metadata["class_names"]) == (*names, "none")
        assert not any(weight.requires_grad for weight in network.parameters())
        right = (network.predict({"image": images}).argmax(1) == drawn[attribute]).float().mean()
        assert right >= 0.99, attribute


def test_the_judges_of_shapes_see_nothing_in_junk() -> None:
    """Fails for a judge without a class `none`, to which noise is a star."""
    from tasks.shapes.task import pictures

    images = pictures(900_000 + np.arange(100))["image"].float() / 255
    for attribute in ("shape", "colour", "background"):
        judge_of_attribute = ClassifierJudge(f"embedded:judge_{attribute}")
        assert judge_of_attribute.can_reject
        junk = {
            sort: judge_of_attribute.sees(judge_of_attribute.judge(values)).float().mean()
            for sort, values in junk_images(images, range(100)).items()
        }
        assert junk["noise"] == 0, attribute
        if attribute == "shape":  # one colour, and patches, do show a colour
            assert max(junk.values()) <= 0.02, junk


def test_the_judge_of_digits_knows_the_held_out_scans_and_sees_nothing_in_junk() -> None:
    from tasks import ByClass, Digits

    task = Digits(ByClass(3), train_size=1200)
    task.setup()
    test_data = task.datasets["test"]
    batch = test_data.__getitems__(list(range(len(test_data))))  # type: ignore[attr-defined, arg-type]
    right = (judge("digits").predict(batch).argmax(1) == batch["label"]).float().mean()
    assert right >= 0.97
    judge_of_digits = ClassifierJudge("embedded:judge_digits")
    assert judge_of_digits.class_labels == tuple("0123456789")
    junk = {
        sort: judge_of_digits.sees(judge_of_digits.judge(values)).float().mean()
        for sort, values in junk_images(batch["image"], range(len(test_data))).items()
    }
    assert max(junk.values()) <= 0.01, junk


def test_a_few_samples_are_what_the_prompt_says() -> None:
    from tests.backbones.embedded.quality import draw, recognised, shapes_model

    prompts = [
        "a red circle on a dark background",
        "a crimson square over a white wall",
        "a green star",
        "a picture of a violet plus sign",
    ]
    images = draw(shapes_model(), prompts)
    assert images.shape == (4, 3, 32, 32)
    assert recognised(images, torch.tensor([0, 1, 3, 4]), "shape") == {
        "circle": 1,
        "square": 1,
        "star": 1,
        "cross": 1,
    }


@pytest.mark.slow
def test_every_shape_colour_and_background_is_recognised_in_97_percent_of_its_samples() -> None:
    from tests.backbones.embedded.quality import least, of_shapes, shapes_model

    backbone = shapes_model()
    for varied in (False, True):
        shares, _ = of_shapes(backbone, 3, varied)
        assert {attribute: len(rates) for attribute, rates in shares.items()} == {
            "shape": 5,
            "colour": 5,
            "background": 3,
        }
        assert all(least(rates) >= 0.97 for rates in shares.values()), shares


@pytest.mark.slow
def test_every_digit_is_recognised_in_97_percent_of_its_samples() -> None:
    from tests.backbones.embedded.quality import digits_model, least, of_digits

    shares, _ = of_digits(digits_model(), 100)
    assert len(shares) == 10
    assert least(shares) >= 0.97, shares
