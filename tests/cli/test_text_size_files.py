"""The configurations of language models of real size: their commands parse, and the numbers in
their heads are those that are counted.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from tests.cli.conftest import CONFIGS, REPOSITORY, Mu
from tests.cli.test_real_size_files import head

BACKBONES = sorted((CONFIGS / "backbone").glob("*.yaml"))
FILES = [
    *BACKBONES,
    *(CONFIGS / "trainer" / name for name in ("ddp_gpu.yaml", "fsdp.yaml")),
    *sorted((CONFIGS / "task").glob("tofu_*.yaml")),
]
SHAPES: dict[str, dict[str, Any]] = {
    "llama32_1b": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "llama2_7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
}


def commands() -> list[str]:
    """`mu fit` of all heads."""
    command_lines = set()
    for file in FILES:
        for match in re.finditer(
            r"^#   mu fit (.*(?:\n#  {5,}.*)*)", file.read_text(), re.MULTILINE
        ):
            command_lines.add(re.sub(r"\s*\n#\s+", " ", match[1]))
    return sorted(command_lines)


@pytest.mark.parametrize("command", commands())
def test_the_commands_in_the_heads_parse(
    mu: Mu, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutation: an argument that the class does not have, or a file that is not there."""
    monkeypatch.chdir(REPOSITORY)
    answer = mu("fit", *command.split(), "--print_config")
    assert answer.code == 0, answer.err
    config = yaml.safe_load(answer.out)
    assert config["model"]["init_args"]["backbone"]["class_path"].endswith("CausalLM") and config[
        "data"
    ]["class_path"].endswith("TOFU")


def test_every_backbone_and_method_go_together(mu: Mu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutation: a backbone's file that names an argument of another class."""
    monkeypatch.chdir(REPOSITORY)
    for file in BACKBONES:
        assert re.search(rf"#   mu fit .*{file.name}", file.read_text())


@pytest.mark.parametrize("file", BACKBONES, ids=lambda file: file.stem)
def test_numbers_in_the_heads_are_counted(file: Any) -> None:
    """Mutation: another rank, another part that gets adapters, or a wrong shape."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    name = "_".join(file.stem.split("_")[:2])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPES[name]))
    count = sum(weight.numel() for weight in model.parameters())
    assert f"{count / 1e6:,.1f} million (counted)" in head(file)
    arguments = yaml.safe_load(file.read_text())["model"]["init_args"]["backbone"]["init_args"]
    if "lora" in arguments:
        linear = {
            f"{module_name}.weight": layer
            for module_name, layer in model.named_modules()
            if isinstance(layer, nn.Linear)
        }
        rank = arguments["lora"]["init_args"]["r"]
        adapters = sum(
            rank * sum(layer.weight.shape)
            for module_name, layer in linear.items()
            if re.search(arguments["part"], module_name)
        )
        assert f"adapters: {adapters / 1e6:.1f} million (counted)" in head(file)
    else:
        assert f"{16 * count / 1e9:.1f} GB" in head(file)
