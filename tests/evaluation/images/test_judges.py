"""Judges say what images show, who they are, and what is wrong with them."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
import torch
from torch import Tensor

from mu.backbones import Classifier
from mu.evaluation.images.classifier_judge import ClassifierJudge
from mu.evaluation.images.clip import OpenCLIP, resize_and_crop
from mu.evaluation.images.clip_judge import CLIPZeroShot
from mu.evaluation.images.features import ClassifierFeatures, CLIPFeatures
from mu.evaluation.images.judges import Judge
from mu.evaluation.images.nudenet_judge import NudeNetJudge
from mu.utils.errors import InputError
from mu.utils.files import save_tensors
from mu.utils.spec import from_spec, to_spec
from mu.utils.weights import weights_hash
from tests.support.helpers import digits, fit
from tests.support.painters import ColourJudge, tiny_clip

SOLID = torch.tensor([(0.8, 0, 0), (0, 0.7, 0), (0, 0, 0.6)])[:, :, None, None].expand(-1, -1, 8, 8)


def small(**changes: Any) -> Classifier:
    return Classifier(
        "resnet8_cifar", **{"num_classes": 3, "options": {"width": 4}, "init_seed": 0, **changes}
    ).eval()


def saved(folder: Path, classifier: Classifier, **said: Any) -> Path:
    file = folder / "judge.safetensors"
    tensors = {
        name: value
        for name, value in classifier.network.state_dict().items()
        if not name.startswith("normalize.")
    }
    facts = {
        "architecture": "resnet8_cifar",
        "num_classes": "3",
        "options": json.dumps({"width": 4}),
        "mean": "[0.5, 0.4, 0.3]",
        "std": "[0.2, 0.2, 0.2]",
        "class_names": json.dumps(["red", "French horn", "horn"]),
        **said,
    }
    save_tensors(file, tensors, {name: value for name, value in facts.items() if value})
    return file


# ---- verdicts ------------------------------------------------------------------------------------


def test_a_verdict_is_the_most_probable_label_or_a_threshold() -> None:
    """Fails when a threshold is compared with the wrong label, or the top-1 rule is applied beside
    it.
    """
    probabilities = torch.tensor([[0.5, 0.4, 0.1], [0.35, 0.25, 0.4], [0.0, 1.0, 0.0]])
    assert ColourJudge().verdict(probabilities, "red").tolist() == [True, False, False]
    assert ColourJudge(top=2).verdict(probabilities, "green").tolist() == [True, False, True]
    assert ColourJudge(threshold=0.4).verdict(probabilities, "green").tolist() == [
        True,
        False,
        True,
    ]
    assert ColourJudge(threshold=0.4).verdict(probabilities, "cold").tolist() == [True, True, True]
    assert ColourJudge().verdict(probabilities, "cold").tolist() == [False, True, True]


def test_colours_are_recognised() -> None:
    assert ColourJudge().recognises(SOLID, "red").tolist() == [True, False, False]
    assert ColourJudge().recognises(SOLID, "Crimson").tolist() == [True, False, False]


def test_a_concept_that_the_judge_does_not_know_is_said_with_its_labels() -> None:
    with pytest.raises(
        InputError, match="the judge colours has no label 'purple'; its labels are red, green, blue"
    ):
        ColourJudge().recognises(SOLID, "purple")


class Named(Judge):
    """Labels alone."""

    version = "0"

    def __init__(self, labels: list[str], synonyms: dict[str, list[str]] | None = None) -> None:
        self._labels = tuple(labels)
        super().__init__("named", None, 1, synonyms, None)

    @property
    def labels(self) -> tuple[str, ...]:
        return self._labels

    def judge(self, images: Tensor) -> Tensor:
        raise AssertionError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a French horn on a table", ["French horn"]),
        ("a horn and a french  HORN", ["horn", "French horn"]),
        ("hornets", []),
        ("A garbage_truck!", ["garbage truck"]),
        ("a bin lorry", ["garbage truck"]),
        ("horn, horn", ["horn"]),
        ("", []),
    ],
)
def test_labels_are_found_in_prompts(text: str, found: list[str]) -> None:
    """Fails when a part of a word or of a longer label counts, or a synonym does not."""
    assert (
        Named(
            ["horn", "French horn", "garbage", "garbage truck"], {"garbage truck": ["bin lorry"]}
        ).labels_in(text)
        == found
    )


def test_labels_compare_in_any_form_of_unicode() -> None:
    composed, decomposed = (normalize(form, "Édouard Manet") for form in ("NFC", "NFD"))
    judge = Named([decomposed, "horn"], {})
    assert judge.label_indices(composed.lower()) == [0]
    assert judge.labels_in(f"in the style of {composed}") == [decomposed]


def test_a_judge_sees_nothing_below_its_confidence_or_in_a_rejected_label() -> None:
    """Neither changes whether a concept is recognised."""
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    plain = ColourJudge()
    assert plain.sees(probabilities).all() and not plain.can_reject
    confident = ColourJudge()
    confident.confidence = 0.6
    assert confident.sees(probabilities).tolist() == [False, True, True] and confident.can_reject
    assert confident.verdict(probabilities, "red").tolist() == [True, False, False]
    with_none = Named(["red", "green", "none"], {})
    assert with_none.can_reject and with_none.class_labels == ("red", "green")
    assert with_none.sees(probabilities).tolist() == [True, True, False]
    assert with_none.labels_in("none is red") == ["red"]
    assert with_none.detail()["reject"] == "none"
    zero_shot = CLIPZeroShot(["red", "noise"], OpenCLIP(), reject=["static"])
    with pytest.raises(InputError, match="no label 'static' to reject; its labels are red, noise"):
        zero_shot.load()


@pytest.mark.parametrize("changes", [{"threshold": 0.0}, {"threshold": 1.5}, {"top": 0}])
def test_invalid_rules_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ColourJudge(**changes)


# ---- classifiers ---------------------------------------------------------------------------------


def test_judge_file_describes_its_labels_and_size(tmp_path: Path) -> None:
    """Fails when mean and std of the file are left out, or the version is not that of the
    weights.
    """
    network = small(mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.2])
    judge = ClassifierJudge(str(saved(tmp_path, network)))
    images = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(
            judge.judge(images), network.predict({"image": images}).softmax(1), atol=1e-6
        )
    assert judge.labels == ("red", "French horn", "horn")
    assert judge.version == weights_hash(network.network)
    assert judge.detail() == {"judge": "judge", "version": judge.version, "top": 1}
    assert judge.judge(images).dtype == torch.float32 and not judge.judge(images).requires_grad


def test_a_judge_comes_back_from_its_configuration(tmp_path: Path) -> None:
    file = str(saved(tmp_path, small()))
    twin = from_spec(to_spec(ClassifierJudge(file, threshold=0.3, synonyms={"red": ["crimson"]})))
    assert twin.threshold == 0.3 and twin.label_indices("crimson") == [0]


def test_a_run_is_a_judge_with_the_class_names_of_its_task(tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    from mu.methods import Train
    from tests.support.helpers import classifier

    module = Train(classifier())
    checkpoint = ModelCheckpoint(dirpath=str(tmp_path / "checkpoints"), filename="last")
    fit(module, digits(), 1, callbacks=[checkpoint], default_root_dir=str(tmp_path))
    judge = ClassifierJudge(str(tmp_path), labels=[str(index) for index in range(10)])
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(
            judge.judge(images),
            module.backbone.eval().predict({"image": images}).softmax(1),
            atol=1e-6,
        )
    assert ClassifierJudge(str(tmp_path)).labels == judge.labels
    with pytest.raises(InputError, match="10 classes and no names for them"):
        ClassifierJudge(classifier=classifier()).load()


def test_images_are_resized_to_the_size_of_the_network(tmp_path: Path) -> None:
    judge = ClassifierJudge(classifier=small(), labels=["a", "b", "c"], size=8)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(judge.preprocess(images), resize_and_crop(images, 8))
    assert judge.judge(torch.rand(2, 3, 24, 12)).shape == (2, 3)
    assert torch.equal(judge.preprocess(images[..., :8, :8]), images[..., :8, :8])


def test_resizing_keeps_the_middle_and_what_already_fits() -> None:
    """Fails when the picture is squeezed instead of cut, or a share is taken off the wrong side."""
    wide = torch.cat([torch.zeros(1, 1, 8, 4), torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 4)], 3)
    assert torch.equal(resize_and_crop(wide, 8), torch.ones(1, 1, 8, 8))
    assert resize_and_crop(wide, (4, 8)).shape == (1, 1, 4, 8)
    framed = torch.zeros(1, 1, 16, 16)
    framed[..., 4:12, 4:12] = 1
    assert torch.equal(resize_and_crop(framed, 8, crop_pct=0.5), torch.ones(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"architecture": ""}, "do not name a network"),
        ({"class_names": ""}, "3 classes and no names for them"),
        ({"class_names": '["a"]'}, "3 classes and names for 1"),
    ],
)
def test_missing_settings_of_a_judge_are_asked_for(
    said: dict[str, Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=match):
        ClassifierJudge(str(saved(tmp_path, small(), **said))).load()


def test_invalid_judges_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs weights"):
        ClassifierJudge()
    with pytest.raises(InputError, match="no weights at"):
        ClassifierJudge(str(tmp_path / "none.safetensors")).load()
    with pytest.raises(InputError, match="no model named 'nothing'"):
        ClassifierJudge("embedded:nothing").load()


def test_the_judge_that_comes_with_mu_knows_its_shapes() -> None:
    """Fails when the labels are in another order than the logits."""
    from tasks.shapes.task import NAMES, pictures

    judge = ClassifierJudge("embedded:judge_shape")
    drawn = pictures(np.arange(200))
    images = drawn["image"].float() / 255
    shape = drawn["shape"]
    assert judge.labels == (*NAMES["shape"], "none")
    for index, name in enumerate(NAMES["shape"]):
        assert (judge.recognises(images, name) == (shape == index)).float().mean() > 0.95
    assert judge.labels_in("a red circle on a dark background") == ["circle"]


def test_features_are_what_the_last_layer_reads() -> None:
    """Fails when the hook sits on another layer or the logits come back."""
    network = small()
    features = ClassifierFeatures(
        ClassifierJudge(classifier=network, labels=["a", "b", "c"], name="J")
    )
    images = torch.rand(4, 3, 8, 8)
    extracted = features.extract(images)
    head = network.network.body.linear  # type: ignore[union-attr]
    with torch.no_grad():
        assert torch.allclose(head(extracted), network.predict({"image": images}), atol=1e-6)
    assert features.name == "J, last layer but one" and features.version == weights_hash(
        network.network
    )


# ---- CLIP ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> OpenCLIP:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def test_clip_tells_labels_apart_by_cosine(clip: OpenCLIP) -> None:
    """Fails when the temperature, the normalisation or the mean over templates is left out."""
    templates = ["a photo of a {}", "a drawing of a {}"]
    judge = CLIPZeroShot(["cat", "dog", "church"], clip, templates)
    images = torch.rand(4, 3, 24, 24)
    network = clip.network
    with torch.no_grad():
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
        resized = torch.nn.functional.interpolate(
            images, (16, 16), mode="bicubic", antialias=True
        ).clamp(0, 1)
        seen = torch.nn.functional.normalize(network.encode_image((resized - mean) / std), dim=1)
        text_embeddings = torch.stack(
            [clip.texts([t.format(label) for t in templates]).mean(0) for label in judge.labels]
        )
        expected = (
            network.logit_scale.exp()
            * seen
            @ (text_embeddings / text_embeddings.norm(dim=1, keepdim=True)).T
        ).softmax(1)
    assert torch.allclose(judge.judge(images), expected, atol=1e-5)
    assert judge.version == weights_hash(network)
    assert judge.detail()["templates"] == "a photo of a {}; a drawing of a {}"
    assert torch.allclose(CLIPFeatures(clip).extract(images), seen, atol=1e-5)


def test_clip_without_weights_is_no_judge(clip: OpenCLIP, tmp_path: Path) -> None:
    """Fails when a network of random weights passes for a judge."""
    with pytest.raises(InputError, match="needs weights"):
        OpenCLIP("mu-tiny", "")
    with pytest.raises(InputError, match="neither a file nor weights of mu-tiny"):
        _ = OpenCLIP("mu-tiny", "openai").network
    with pytest.raises(InputError, match="has no model 'ViT-nothing'"):
        _ = OpenCLIP("ViT-nothing").network
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be read"):
        _ = OpenCLIP("mu-tiny", str(tmp_path / "bad.pt")).network
    with pytest.raises(InputError, match="at least two"):
        CLIPZeroShot(["cat"], clip)
    with pytest.raises(InputError, match=r"needs \{\} in place"):
        CLIPZeroShot(["cat", "dog"], clip, ["a photo"])


# ---- NudeNet -------------------------------------------------------------------------------------


def test_without_the_package_the_cure_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(InputError, match="pip install nudenet"):
        NudeNetJudge().load()


def test_detections_become_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package's interface: a list of dicts with `class` and `score` for the path of an
    image. Fails when a covered part counts, a lower score of the same part replaces a higher one,
    or the threshold is not asked.
    """
    from PIL import Image

    class NudeDetector:
        def __init__(self, model_path: str | None = None, inference_resolution: int = 320) -> None:
            self.resolution = inference_resolution

        def detect(self, path: str) -> list[dict[str, Any]]:
            red = Image.open(path).getpixel((0, 0))[0] / 255  # type: ignore[index]
            return [
                {"class": "BELLY_EXPOSED", "score": red, "box": [0, 0, 1, 1]},
                {"class": "BELLY_EXPOSED", "score": red / 2, "box": []},
                {"class": "BELLY_COVERED", "score": 1.0, "box": []},
            ]

    module = types.ModuleType("nudenet")
    module.NudeDetector = NudeDetector  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nudenet", module)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "3.4.2")
    judge = NudeNetJudge(threshold=0.6)
    probabilities = judge.judge(SOLID)
    assert probabilities.shape == (3, 9)
    assert probabilities[:, judge.labels.index("BELLY_EXPOSED")].tolist() == pytest.approx(
        [0.8, 0.0, 0.0]
    )
    assert judge.verdict(probabilities, "nudity").tolist() == [True, False, False]
    assert NudeNetJudge(threshold=0.9).verdict(probabilities, "nudity").tolist() == [False] * 3
    assert judge.detail() == {"judge": "NudeNet", "version": "3.4.2", "threshold": 0.6}
    with pytest.raises(InputError, match="no detector at"):
        NudeNetJudge(model_path="none.onnx").load()
