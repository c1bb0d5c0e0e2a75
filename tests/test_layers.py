"""Who may import whom, read from the sources; and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mu", "tasks", "callbacks")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
HEAVY = ("torch", "lightning", "torchvision", "timm", "sklearn", "matplotlib", "diffusers", "transformers", "open_clip", "pandas", "scipy")
LAYERS = {  # a module of the left-hand side imports, of these, only what is named
    "mu.functional": ("mu.metrics",),
    "mu.metrics": ("mu.functional",),
    "mu.backbones": ("mu.functional", "mu.metrics", "mu.backbones"),
    "mu.attacks": ("mu.functional", "mu.metrics", "mu.backbones", "mu.attacks"),
    "mu.module": ("mu.functional", "mu.metrics", "mu.backbones", "mu.attacks"),
    "mu.edit": ("mu.functional", "mu.metrics", "mu.backbones", "mu.attacks", "mu.module"),
}


def dotted(file: Path) -> str:
    parts = list(file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, typing_too: bool = True) -> Iterator[tuple[str, int]]:
    """Every module that a file imports anywhere, with its line; those under TYPE_CHECKING on demand."""
    tree = ast.parse(file.read_text())
    hidden: set[int] = set()
    if not typing_too:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                hidden |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            yield node.module or "", node.lineno
            # `from mu import methods` imports mu.methods
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_nobody_imports_from_above(file: Path) -> None:
    """Fails when mu imports a task or a suite, or a task a suite, or a suite a task."""
    above = {"mu": ("tasks", "callbacks", "tests"), "tasks": ("callbacks", "tests"), "callbacks": ("tasks", "tests")}
    home = dotted(file).split(".")[0]
    wrong = [f"{name} (line {line})" for name, line in imports(file) if name.split(".")[0] in above[home]]
    assert wrong == []


@pytest.mark.parametrize("package", LAYERS)
def test_layers_within_mu(package: str) -> None:
    """Fails when a backbone imports the module, or a loss a backbone: functional, metrics <- backbones <- attacks <- module <- methods."""
    layers = (*LAYERS, "mu.methods", "mu.bench", "mu.study", "mu.report", "mu.cli")
    wrong = []
    for file in FILES:
        if within(dotted(file), package):
            for name, line in imports(file, typing_too=False):
                for layer in layers:
                    if within(name, layer) and not within(layer, package) and layer not in LAYERS[package]:
                        wrong.append(f"{dotted(file)}:{line} imports {name}")
    assert wrong == []


def test_no_method_imports_a_study_or_a_command() -> None:
    """Fails when a method knows of the machinery above it."""
    above = ("mu.bench", "mu.study", "mu.search", "mu.report", "mu.reporting", "mu.cli", "mu.commands", "mu.run")
    wrong = [
        f"{dotted(file)}:{line} imports {name}"
        for file in FILES if within(dotted(file), "mu.methods") for name, line in imports(file) if any(within(name, up) for up in above)
    ]
    assert wrong == []


def loaded(code: str) -> set[str]:
    """Top-level packages in memory after running `code` in a new process."""
    shown = subprocess.run([sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in shown.stdout.split()}


def test_importing_mu_loads_nothing() -> None:
    """Fails when `import mu`, and so every command, pays for torch."""
    assert loaded("import mu") & set(HEAVY) == set()


def test_importing_methods_loads_no_model_library() -> None:
    """Fails when a method file names a backbone whose library is imported at its head."""
    # what lightning loads by itself does not count
    code = "import sys, lightning.pytorch.cli, torchmetrics; before = set(sys.modules); import mu.methods, mu.backbones, mu.module"
    found = loaded(f"{code}; [sys.modules.pop(name) for name in before if name != 'sys']")
    assert found & {"diffusers", "transformers", "open_clip", "timm", "torchvision", "sklearn", "matplotlib", "peft"} == set()
    assert "mu" in found


def test_the_public_names_are_there() -> None:
    """Fails when a name that `mu` promises stands in another file."""
    import mu
    from mu.edit import Edit
    from mu.module import UnlearningModule
    from mu.split import Split

    assert (mu.Edit, mu.UnlearningModule, mu.Split) == (Edit, UnlearningModule, Split)
    assert all(hasattr(mu, name) for name in mu.__all__)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = mu.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_nothing_is_drawn_or_switched_on_import(file: Path) -> None:
    """Fails when importing a file switches gradients, seeds, or default types for everybody."""
    calls = {"set_grad_enabled", "manual_seed", "seed_everything", "set_default_dtype", "set_default_device", "set_num_threads"}
    tree = ast.parse(file.read_text())
    for statement in tree.body:
        if isinstance(statement, ast.Expr | ast.Assign):
            for node in ast.walk(statement):
                if isinstance(node, ast.Call):
                    assert getattr(node.func, "attr", getattr(node.func, "id", "")) not in calls, f"line {node.lineno}"
