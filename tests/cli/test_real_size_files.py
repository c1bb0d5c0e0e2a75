"""The configurations of real size: their commands parse, without the models; the numbers in their
heads are those that are counted.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from mu.backbones.diffusion.trained_parts import trained_names
from mu.bench.study_file import read_study
from mu.config.components import Components, merge
from tests.cli.conftest import CONFIGS, REPOSITORY, Mu

TASKS = sorted([*(CONFIGS / "task").glob("*_sd14.yaml"), CONFIGS / "task" / "cifar10_ddpm.yaml"])
METHODS = sorted(
    [*(CONFIGS / "method").glob("*_sd14.yaml"), CONFIGS / "method" / "train_cifar10_ddpm.yaml"]
)
STUDIES = sorted(
    [*(CONFIGS / "bench").glob("sd14_*.yaml"), CONFIGS / "bench" / "cifar10_ddpm.yaml"]
)


def head(file: Path) -> str:
    """The comment at the beginning, in one line."""
    lines = file.read_text().splitlines()
    return " ".join(
        line.lstrip("# ")
        for line in lines[: next(n for n, line in enumerate(lines) if not line.startswith("#"))]
    )


def commands() -> list[str]:
    """`mu fit` of all heads."""
    command_lines = set()
    for file in (*TASKS, *METHODS):
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
    assert config["trainer"]["accelerator"] == "gpu" and config["trainer"][
        "default_root_dir"
    ].startswith("runs/")


def test_every_file_names_its_command() -> None:
    texts = {file.name: file.read_text() for file in (*TASKS, *METHODS)}
    lacks = [name for name, text in texts.items() if not re.search(rf"#   mu fit .*{name}", text)]
    assert lacks == []


@pytest.mark.parametrize("file", TASKS, ids=lambda file: file.stem)
def test_files_that_a_task_reads_come_with_it_or_are_the_users(file: Path) -> None:
    arguments = yaml.safe_load(file.read_text())["data"]["init_args"]
    for name in ("path", "retain"):
        if str(arguments.get(name, "")).startswith("configs/"):
            assert (REPOSITORY / arguments[name]).read_text().startswith("prompt\n")


@pytest.mark.parametrize(
    "file", sorted((CONFIGS / "prompts").glob("*.csv")), ids=lambda file: file.stem
)
def test_prompts_are_read(file: Path) -> None:
    import tasks

    objects = file.stem == "objects"
    concept = "" if objects else file.stem.removesuffix("_test").replace("_", " ")
    task = tasks.PromptList(str(file), str(CONFIGS / "prompts" / "objects.csv"), concept=concept)
    task.setup()
    count = {name: len(data) for name, data in task.datasets.items()}  # type: ignore[arg-type]
    prompts = 75 if objects else 50 if file.stem.endswith("_test") else 200
    assert count == {"forget": prompts, "retain": 75}
    assert task.datasets["forget"][0]["concept"].lower() == concept  # type: ignore[index]


@pytest.mark.parametrize("file", METHODS, ids=lambda file: file.stem)
def test_each_head_gives_time_and_memory_and_says_what_was_measured(file: Path) -> None:
    text = head(file)
    for word in ("Time", "Memory"):
        assert re.search(rf"{word} \((estimate|measured)\): [^.]*\d", text), word
    assert "Measured by counting: an evaluation" in text


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_studies_are_made_of_parts_that_exist(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutation: an argument that a method, a task or a suite does not have."""
    monkeypatch.chdir(REPOSITORY)
    study = read_study(file)
    components = Components()
    for task in study.tasks:
        components.resolve("data", study.task_spec(task))
        for method in study.methods:
            spec = study.method_spec(task, method)
            components.resolve(
                "model", merge({"init_args": {"backbone": study.backbone}}, spec["model"])
            )
    components.resolve(
        "callbacks",
        [{"class_path": suite} if isinstance(suite, str) else suite for suite in study.suites],
    )
    assert "estimate" in head(file)


def test_prompts_do_not_depend_on_the_split_seed() -> None:
    """Mutation: a study that gives every task a split_seed, which a list of prompts does not
    take.
    """
    from mu.bench.runner import Bench

    study = read_study(
        CONFIGS / "bench" / "sd14_objects.yaml",
        {
            "tasks": {
                "church": {
                    "init_args": {
                        name: str(CONFIGS / "prompts" / f"{file}.csv")
                        for name, file in (("path", "church"), ("retain", "objects"))
                    }
                }
            }
        },
    )
    task = Bench(study).task("church", study.seeds[0])
    task.setup()
    assert task.split.selector["concept"] == "church"


@pytest.mark.parametrize(("changes", "new"), [({}, False), ({"init_seed": 0}, True)])
def test_a_model_that_is_named_brings_its_weights(
    changes: dict[str, Any], new: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mutation: only `weights` counts, so that every run on Stable Diffusion is said to have
    nothing to forget.
    """
    from mu.cli.trainer_callbacks import warn_of_new_weights
    from mu.methods import FineTune
    from tests.support.doubles import class_conditional, text_to_image

    warn_of_new_weights(FineTune(text_to_image(**changes)))
    assert ("new random weights" in capsys.readouterr().err) is new
    warn_of_new_weights(FineTune(class_conditional()))
    assert "new random weights" in capsys.readouterr().err


# ---- numbers that are counted --------------------------------------------------------------------


@pytest.fixture(scope="module")
def components() -> dict[str, nn.Module]:
    """Stable Diffusion 1.4 without weights, by the public configuration."""
    from tests.support.real_size import stable_diffusion

    with torch.device("meta"):
        return stable_diffusion()


def millions(module: nn.Module) -> float:
    return round(sum(weight.numel() for weight in module.parameters()) / 1e6, 1)


def test_sizes_of_stable_diffusion(components: dict[str, nn.Module]) -> None:
    assert sum(weight.numel() for weight in components["unet"].parameters()) == 859_520_964
    counted = " + ".join(
        str(millions(components[name])) for name in ("unet", "text_encoder", "vae")
    )
    assert counted == "859.5 + 123.1 + 83.7"
    for file in (CONFIGS / "task").glob("*_sd14.yaml"):
        if "PromptList" in file.read_text():
            assert f"4.3 GB ({counted} million, measured, times 4 bytes)" in head(file)


@pytest.mark.parametrize("name", ["esd_x", "esd_u", "adv_unlearn"])
def test_sizes_of_parts(components: dict[str, nn.Module], name: str) -> None:
    file = CONFIGS / "method" / f"{name}_sd14.yaml"
    part = yaml.safe_load(file.read_text())["model"]["init_args"]["backbone"]["init_args"]["part"]
    sizes = {
        f"{module_name}.{inner}": weight.numel()
        for module_name in ("unet", "text_encoder")
        for inner, weight in components[module_name].named_parameters()
    }
    count = round(sum(sizes[chosen] for chosen in trained_names(sizes, part)) / 1e6, 1)
    assert f"{count} million (measured)" in head(file)


def test_an_evaluation_of_the_unet(components: dict[str, nn.Module]) -> None:
    assert (
        round(
            flops(
                components["unet"],
                torch.empty(1, 4, 64, 64, device="meta"),
                torch.empty(1, device="meta"),
                encoder_hidden_states=torch.empty(1, 77, 768, device="meta"),
            )
            / 1e12,
            3,
        )
        == 0.803
    )
    for file in (CONFIGS / "method").glob("*_sd14.yaml"):
        assert "an evaluation of the UNet at 512 x 512 is 0.803 TFLOP (E)" in head(file)


def flops(network: nn.Module, *inputs: Any, **named: Any) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs, **named)
    return counter.get_total_flops()


def test_the_ddpm_of_cifar10() -> None:
    """The study and the task have the same model."""
    from diffusers import UNet2DModel

    task = yaml.safe_load((CONFIGS / "task" / "cifar10_ddpm.yaml").read_text())["model"][
        "init_args"
    ]["backbone"]
    assert read_study(CONFIGS / "bench" / "cifar10_ddpm.yaml").backbone == task
    with torch.device("meta"):
        network = UNet2DModel(**task["init_args"]["unet"], num_class_embeds=11)
        count = flops(
            network,
            torch.empty(1, 3, 32, 32),
            torch.empty(1),
            class_labels=torch.zeros(1, dtype=torch.int64),
        )
    assert (millions(network), round(count / 1e9, 1)) == (35.8, 12.4)
    assert "35.8 million weights (measured)" in head(CONFIGS / "task" / "cifar10_ddpm.yaml")
    assert "12.4 GFLOP" in head(CONFIGS / "method" / "train_cifar10_ddpm.yaml")
