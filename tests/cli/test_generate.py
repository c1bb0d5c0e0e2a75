"""`mu generate` writes images or answers of several models side by side."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mu.backbones import Sampler
from mu.utils.files import read_json
from tests.cli.conftest import Mu
from tests.support.doubles import pipeline_folder, text_to_image
from tests.support.doubles_text import causal_lm
from tests.support.doubles_text import folder as language_folder

IMAGES = ("--num_inference_steps", "2", "--guidance_scale", "2")


def table(folder: str = "out") -> list[dict[str, str]]:
    with open(f"{folder}/generations.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_images_are_those_of_the_models_own_sampler(mu: Mu) -> None:
    answer = mu("generate", pipeline_folder(), "--prompts", "a red circle", "a star", *IMAGES,
                "--seed", "3", "--num_images_per_prompt", "2", "--output", "out")  # fmt: skip
    assert answer.code == 0, answer.err
    assert "page: out/index.html" in answer.out
    rows = table()
    assert [row["seed"] for row in rows] == ["3", "4", "5", "6"]
    name = Path(pipeline_folder()).name
    model = text_to_image()
    expected = model.eval().generate_prompts(
        ["a red circle", "a red circle", "a star", "a star"],
        [3, 4, 5, 6],
        Sampler(num_inference_steps=2, guidance_scale=2.0),
    )
    for row, image in zip(rows, expected, strict=True):
        pixels = np.asarray(Image.open(Path("out") / row[name]))
        assert np.abs(pixels - (image.permute(1, 2, 0).numpy() * 255)).max() <= 1
    settings = read_json("out/generations.json")
    assert settings["settings"]["seed"] == 3
    assert settings["settings"]["sampler"] == "DDIM, 2 steps, guidance 2"
    assert "a red circle" in Path("out/index.html").read_text()


def test_answers_stand_beside_one_another_with_the_true_ones(mu: Mu, tmp_path: Path) -> None:
    (tmp_path / "questions.csv").write_text("question,answer\nwhat does ada make ?,boats\n")
    answer = mu("generate", language_folder(), "--beside", "embedded:authors", "--prompts",
                "questions.csv", "where does bert live ?", "--max_new_tokens", "4",
                "--template", "mu.data.Plain", "--output", "out")  # fmt: skip
    assert answer.code == 0, answer.err
    name = Path(language_folder()).name
    rows = table()
    assert [row["truth"] for row in rows] == ["boats", ""]
    lm = causal_lm().eval()
    ids = lm.tokenizer("Question: what does ada make ?\nAnswer: ")["input_ids"]
    assert rows[0][name].strip() == lm.generate([ids], max_new_tokens=4)[0].strip()
    assert set(rows[0]) == {"prompt", "seed", "truth", name, "authors"}
    models = read_json("out/generations.json")["models"]
    assert [model["template"] for model in models] == ["Plain", "Plain"]
    assert all(len(model["weights"]) == 16 for model in models)


def test_sampled_answers_depend_on_the_seed_alone(mu: Mu) -> None:
    words = ("generate", language_folder(), "--prompts", "ada", "bert", "--do_sample",
             "--temperature", "2", "--max_new_tokens", "6")  # fmt: skip
    for output, seed, batch in (("a", "1", "8"), ("b", "1", "1"), ("c", "2", "8")):
        assert mu(*words, "--output", output, "--seed", seed, "--batch_size", batch).code == 0
    assert table("a") == table("b")
    assert table("a") != table("c")


def test_a_run_answers_with_the_template_of_its_task(mu: Mu, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(
        "data:\n  class_path: tasks.Authors\n  init_args:\n"
        "    template: {class_path: mu.data.Llama2}\n    curves: []\n"
        "trainer:\n  callbacks+:\n    - class_path: callbacks.TextExamples\n"
        "      init_args: {count: 1, max_new_tokens: 2}\n"
    )
    words = ("-c", "task.yaml", "-c", "silent.yaml", "--trainer.limit_test_batches", "1")
    tested = mu("test", "embedded:authors", *words)
    assert tested.code == 0, tested.err
    answer = mu("generate", "runs/authors", "--prompts", "Who?", "--max_new_tokens", "2",
                "--output", "out")  # fmt: skip
    assert answer.code == 0, answer.err
    (model,) = read_json("out/generations.json")["models"]
    assert (model["name"], model["template"]) == ("authors", "Llama2")


def test_classes_of_a_class_conditional_model_are_numbers(mu: Mu) -> None:
    words = ("generate", "embedded:digits", *IMAGES, "--output", "out", "--prompts")
    refused = mu(*words, "a three")
    assert refused.code == 2 and "is no number of a class" in refused.sentence
    answer = mu(*words, "3", "7")
    assert answer.code == 0, answer.err
    assert [row["prompt"] for row in table()] == ["3", "7"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("missing.pt", "--prompts", "x"), "there is no model missing.pt"),
        (("LM", "--beside", "SD", "--prompts", "x"), "compare models of one domain"),
        (("LM", "--beside", "LM", "--prompts", "x"), "stands twice"),
        (("LM", "--prompts", "x", "--guidance_scale", "2"), "--guidance_scale is an option of im"),
        (("LM", "--prompts", "x", "--temperature", "2"), "belongs to sampling; add --do_sample"),
        (("LM", "--prompts", "x", "--template", "Nothing"), "there is no template 'Nothing'"),
        (("LM", "--prompts", "x", "--batch_size", "0"), "--batch_size is 0"),
        (("LM", "--prompts", "x", "--device", "nowhere"), "--device nowhere cannot be used"),
        (("LM", "--prompts", "x", "--num_return_sequences", "0"), "draw at least 1"),
        (("LM",), "the following arguments are required: --prompts"),
    ],
)
def test_what_cannot_be_generated_is_one_sentence_and_leaves_nothing(
    mu: Mu, words: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    paths = {"LM": language_folder(), "SD": pipeline_folder()}
    before = set(tmp_path.iterdir())
    answer = mu("generate", *[paths.get(word, word) for word in words], "--output", "out")
    assert answer.code == 2
    assert sentence in answer.sentence
    assert set(tmp_path.iterdir()) == before


def test_a_folder_that_is_not_empty_is_never_overwritten(mu: Mu, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    answer = mu("generate", language_folder(), "--prompts", "x", "--output", "out")
    assert answer.code == 2 and "is not an empty folder" in answer.sentence
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
