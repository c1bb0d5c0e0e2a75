"""Every option that pages, configurations, messages and docstrings name exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lightning.pytorch import Callback, Trainer

from mu.config.argument_types import (
    argument_names,
    component_classes,
    constructor_hints,
    entry_hint,
)
from mu.config.classes import components, subclasses
from mu.core.module import UnlearningModule
from mu.data.datamodule import UnlearningDataModule

ROOT = Path(__file__).parents[2]
OPTION = re.compile(r"(?<![\w-])--((?:trainer|model|data|suite)\.[a-z][\w.]*)")
COMMAND_OPTION = re.compile(r"\bmu (bench|report|export|import|list|show) [^`\n]*?--([a-z_]+)")
PLACEHOLDERS = {"help", "X", "x", "NAME", "name"}


def texts() -> Iterator[tuple[Path, str]]:
    """Files with options for users: pages, configurations, sources."""
    files = [ROOT / "README.md", *(ROOT / "configs").rglob("*.yaml")]
    files += [file for file in (ROOT / "docs").rglob("*.md") if "_build" not in file.parts]
    for package in ("mu", "tasks", "callbacks", "examples"):
        files += (ROOT / package).rglob("*.py")
    for file in files:
        if file.is_file() and "_generated" not in file.parts:
            yield file, file.read_text(encoding="utf-8")


@cache
def names(base: type) -> frozenset[str]:
    """Arguments of the subclasses of a class."""
    classes = [base, *subclasses(base)]
    return frozenset(name for cls in classes for name in argument_names(cls))


@cache
def nested_names(base: type, name: str) -> frozenset[str]:
    """Arguments of the components that an argument of the subclasses of a class takes."""
    inner_names: set[str] = set()
    for cls in [base, *subclasses(base)]:
        hint = constructor_hints(cls).get(name)
        for member in (hint, entry_hint(hint)):
            for component, _ in component_classes(member):
                inner_names |= names(component)
            if "dict" in str(member).lower() or "mapping" in str(member).lower():
                inner_names.add("*")
    return frozenset(inner_names)


def exists(option: str) -> bool:
    """Whether an option of a command of Lightning's exists for some class."""
    section, *path = [word for word in option.split(".") if word not in ("init_args", "")]
    path = [word for word in path if word != "class_path"]
    if not path or path[0] in PLACEHOLDERS:
        return section != "suite"
    if section == "trainer":
        if path[0] == "callbacks" and len(path) > 1:
            section, path = "callbacks", path[1:]
        else:
            return path[0] in argument_names(Trainer)
    if not path or path[0] in PLACEHOLDERS:
        return True
    bases = {"model": UnlearningModule, "data": UnlearningDataModule, "callbacks": Callback}
    base = bases.get(section)
    if base is None or path[0] not in names(base):
        return False
    inner = nested_names(base, path[0]) if len(path) > 1 else frozenset()
    return len(path) < 2 or path[1] in inner or "*" in inner or path[1] in PLACEHOLDERS


def test_named_options_exist() -> None:
    """Fails when a page or a message advises an option that no class has."""
    components()
    unknown = {
        f"{file.relative_to(ROOT)}: --{option}"
        for file, text in texts()
        for option in OPTION.findall(text)
        if not exists(option.rstrip("."))
    }
    assert sorted(unknown) == []


def test_named_options_of_light_commands_exist() -> None:
    """Fails when a page names an option that `mu bench`, `report`, `export`, ... lack."""
    from mu.cli import export, import_model, report, show
    from mu.cli import list as listing
    from mu.cli.bench import _parser

    bench = set(_parser()._option_string_actions)
    sources = {
        "report": report,
        "export": export,
        "import": import_model,
        "list": listing,
        "show": show,
    }
    unknown = set()
    for file, text in texts():
        for command, option in COMMAND_OPTION.findall(text):
            if command == "bench":
                is_known = f"--{option}" in bench
            else:
                source = Path(str(sources[command].__file__)).read_text(encoding="utf-8")
                is_known = f'"--{option.removeprefix("no-")}"' in source
            if not is_known and option not in ("help", "debug", "no"):
                unknown.add(f"{file.relative_to(ROOT)}: mu {command} --{option}")
    assert sorted(unknown) == []


def test_unknown_options_are_noticed() -> None:
    """Fails when the check takes any option for one that exists."""
    components()
    for option in ("suite.oracle", "model.nothing", "trainer.callbacks.oracel", "data.selector.no"):
        assert not exists(option)
    for option in ("trainer.callbacks.oracle", "model.backbone.lora.r", "data.selector.values"):
        assert exists(option)
