"""Every method and every file in configs/ goes through the parser; what `--print_config` prints is
read back as the same.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mu.cli.catalogue import Sources
from mu.cli.list import domains
from tests.cli.conftest import CONFIGS, REPOSITORY, Mu

METHODS = {component.name: component for component in Sources().components("methods")}
TASKS = {
    "Classifier": "digits_random",
    "Regressor": "diabetes_range",
    "TextToImage": "shapes_concept",
    "Diffusion": "shapes_concept",
    "ClassConditionalDiffusion": "digits_diffusion_class",
    "CausalLM": "authors_forget",
}


def task_for(method: str) -> str:
    works_on = domains(METHODS[method])
    return str(
        CONFIGS
        / "task"
        / f"{TASKS['Classifier' if works_on == 'any' else works_on.split(', ')[0]]}.yaml"
    )


def said(text: str) -> dict[str, object]:
    assert "Unable to serialize" not in text
    return yaml.safe_load(text)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_print_config_round_trips(mu: Mu, tmp_path: Path, name: str) -> None:
    """Mutation: a default that has no plain form (a live object in a signature)."""
    first = mu(
        "fit",
        "-c",
        task_for(name),
        "--model",
        METHODS[name].path,
        "--model.seed",
        "3",
        "--print_config",
    )
    assert first.code == 0, first.err
    (tmp_path / "printed.yaml").write_text(first.out)
    second = mu("fit", "-c", "printed.yaml", "--print_config")
    assert second.code == 0, second.err
    assert said(second.out) == said(first.out)
    model = said(first.out)["model"]
    assert (
        isinstance(model, dict)
        and model["class_path"] == METHODS[name].path
        and model["init_args"]["seed"] == 3
    )


@pytest.mark.parametrize(
    "file", sorted((CONFIGS / "method").glob("*.yaml")), ids=lambda file: file.stem
)
def test_presets_parse(mu: Mu, file: Path) -> None:
    """Each preset with a task that its method works on; its head names the command, and the command
    is this one.
    """
    preset = yaml.safe_load(file.read_text())
    name = preset["model"]["class_path"].rpartition(".")[2]
    answer = mu("fit", "-c", task_for(name), "-c", str(file), "--print_config")
    assert answer.code == 0, answer.err
    printed = said(answer.out)
    assert printed["trainer"]["max_epochs"] == preset["trainer"]["max_epochs"]  # type: ignore[index]


PAIRS = [(file, "cpu") for file in sorted((CONFIGS / "task").glob("*.yaml"))]
PAIRS += [
    (CONFIGS / "task" / "digits_random.yaml", file.stem)
    for file in sorted((CONFIGS / "trainer").glob("*.yaml"))
]


@pytest.mark.parametrize(
    ("file", "trainer"), PAIRS, ids=lambda value: value if isinstance(value, str) else value.stem
)
def test_tasks_and_trainers_parse(mu: Mu, file: Path, trainer: str) -> None:
    """With suites appended, and one more callback from the command line."""
    words = (
        "-c",
        str(file),
        "-c",
        str(CONFIGS / "method" / "finetune.yaml"),
        "-c",
        str(CONFIGS / "trainer" / f"{trainer}.yaml"),
    )
    suite = "regression" if "diabetes" in file.stem else "classification"
    answer = mu(
        "fit",
        *words,
        "-c",
        str(CONFIGS / "suite" / f"{suite}.yaml"),
        "-c",
        str(CONFIGS / "suite" / "retrain_gap.yaml"),
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=retain/loss",
        "--print_config",
    )
    assert answer.code == 0, answer.err
    callbacks = [
        entry["class_path"].rpartition(".")[2] for entry in said(answer.out)["trainer"]["callbacks"]
    ]  # type: ignore[index]
    assert callbacks[-3:] == ["Cost", "RetrainGap", "EarlyStopping"]


def commands() -> list[tuple[str, str]]:
    """The commands in the heads of task, suite, trainer and method files, with the file each is
    from.
    """
    lines = []
    for file in sorted(CONFIGS.glob("[!b]*/*.yaml")):
        head = "\n".join(line for line in file.read_text().splitlines() if line.startswith("#"))
        lines += [
            (file.name, re.sub(r"\s*\n#\s+", " ", match[0]).lstrip("# "))
            for match in re.finditer(r"#   mu .*(?:\n#  {5,}.*)*", head)
        ]
    return lines


def test_every_file_names_its_command() -> None:
    named = {file for file, _ in commands()}
    assert named == {file.name for file in CONFIGS.glob("[!b]*/*.yaml")}


def test_the_commands_in_the_heads_name_files_that_exist() -> None:
    for file, command in commands():
        for name in re.findall(r"-c (\S+)", command):
            assert (REPOSITORY / name).is_file(), f"{file}: {command}"


@pytest.mark.parametrize(
    "command",
    sorted(
        {
            command
            for file, command in commands()
            if " fit " in command
            and file
            in (
                "digits_random.yaml",
                "digits_class.yaml",
                "diabetes_range.yaml",
                "cifar10_random.yaml",
                "cifar10n_noisy.yaml",
            )
        }
    ),
)
def test_the_commands_in_the_heads_parse(
    mu: Mu, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    answer = mu(*command.split()[1:], "--print_config")
    assert answer.code == 0, answer.err
