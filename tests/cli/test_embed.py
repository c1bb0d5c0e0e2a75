"""Shipped models are written in the form in which models of their kind are published."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Trainer
from safetensors.torch import load_file

from mu.backbones import CausalLM, TextToImage
from mu.backbones.base import Backbone
from mu.cli.embed import write
from mu.core.module import UnlearningModule
from mu.methods import FineTune
from mu.utils.files import read_json
from tests.support.doubles import pictures, text_to_image
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import trainer, weights


def checkpoint(backbone: Backbone, task: object, folder: Path) -> UnlearningModule:
    """Fit of one step, whose checkpoint is `folder/last.ckpt`."""
    module = FineTune(backbone)
    run: Trainer = trainer(1, limit_train_batches=1)
    run.fit(module, datamodule=task)  # type: ignore[arg-type]
    run.save_checkpoint(folder / "last.ckpt")
    return module


def halves(backbone: Backbone) -> dict[str, torch.Tensor]:
    """Weights in half precision, as float32."""
    return {name: value.half().float() for name, value in weights(backbone).items()}


def test_a_text_to_image_model_has_the_names_of_published_ones(tmp_path: Path) -> None:
    """Fails when the text encoder has names, or the tokenizer lacks files, of which versions of
    transformers before 5 know nothing.
    """
    module = checkpoint(text_to_image(), pictures(), tmp_path)
    folder = write("shapes", str(tmp_path), [], tmp_path / "home")
    tensors = load_file(folder / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in tensors)
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    assert {"vocab.json", "merges.txt"} <= {f.name for f in (folder / "tokenizer").iterdir()}
    again = TextToImage(str(folder))
    read = {name: value.float() for name, value in weights(again).items()}
    for name, value in halves(module.served()).items():
        torch.testing.assert_close(read[name], value)


def test_a_language_model_has_the_settings_of_published_ones(tmp_path: Path) -> None:
    checkpoint(causal_lm(), people(), tmp_path)
    folder = write("authors", str(tmp_path), [], tmp_path / "home")
    config = read_json(folder / "config.json")
    assert config["torch_dtype"] == "float16"
    assert "rope_theta" in config
    settings = read_json(folder / "tokenizer_config.json")
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert CausalLM(str(folder)).vocabulary == causal_lm().vocabulary
