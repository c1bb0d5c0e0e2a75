"""Order of imports between wings, names of test files, and cost of imports, from the sources.

Every import counts: inside functions and under TYPE_CHECKING too. A name that a package exports
counts for the file that defines it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mu", "tasks", "callbacks")
WINGS = (
    "utils",
    "functional",
    "metrics",
    "data",
    "backbones",
    "attacks",
    "core",
    "evaluation",
    "methods",
    "config",
    "bench",
    "cli",
)
"""A wing imports itself and wings to its left."""
APART = {("methods", "evaluation"), ("evaluation", "methods")}
ABOVE_TASKS = ("config", "bench", "cli")
"""Wings that tasks and callbacks do not know."""
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
HEAVY = (
    "torch",
    "lightning",
    "torchvision",
    "timm",
    "sklearn",
    "matplotlib",
    "diffusers",
    "transformers",
    "open_clip",
    "pandas",
    "scipy",
)


def dotted(file: Path) -> str:
    parts = list(file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(file): file for file in FILES}


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
def exports(module: str) -> dict[str, str]:
    """Defining module of each exported name, by the stub or the imports of `__init__`."""
    file = MODULES[module]
    if file.name != "__init__.py":
        return {}
    stub = file.with_suffix(".pyi")
    names = {}
    for node in ast.walk(ast.parse(stub.read_text()) if stub.exists() else tree(file)):
        if isinstance(node, ast.ImportFrom):
            source = f"{module}.{node.module}" if node.level else node.module or ""
            names |= {
                alias.asname or alias.name: source for alias in node.names if source in MODULES
            }
    return names


def imports(file: Path) -> Iterator[tuple[str, int]]:
    """Modules that a file imports at any depth, with their lines."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                if submodule in MODULES:
                    yield submodule, node.lineno
                else:
                    yield (
                        (exports(node.module) if node.module in MODULES else {}).get(
                            alias.name, node.module or ""
                        ),
                        node.lineno,
                    )


def forbidden(source: str, target: str) -> bool:
    """Whether the module `source` may not import the module `target`."""
    package, _, rest = source.partition(".")
    other, _, inner = target.partition(".")
    if other == "tests":
        return True
    if package == "mu" and other != "mu":
        return other in PACKAGES
    if package != "mu":
        return (other in PACKAGES and other not in ("mu", package)) or (
            other == "mu" and inner.partition(".")[0] in ABOVE_TASKS
        )
    wing = rest.partition(".")[0]
    imported = inner.partition(".")[0]
    # mu/__init__ and __main__ name what is public; no wing imports them
    if wing not in WINGS or imported not in WINGS:
        return imported == "" and wing in WINGS
    return WINGS.index(imported) > WINGS.index(wing) or (wing, imported) in APART


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_a_wing_imports_wings_to_its_left(file: Path) -> None:
    """Fails when a loss imports a backbone, a method a suite's machinery, mu a task, or a task a
    suite.
    """
    source = dotted(file)
    wrong = [
        f"line {line} imports {name}"
        for name, line in imports(file)
        if name.split(".")[0] in (*PACKAGES, "tests") and forbidden(source, name)
    ]
    assert wrong == []


def test_the_order_of_the_wings_is_held() -> None:
    """Fails when the rule itself lets an arrow through that runs against the order."""
    assert forbidden("mu.functional.tokens", "mu.backbones.base")
    assert forbidden("mu.methods.general.salun", "mu.evaluation.media")
    assert forbidden("mu.evaluation.media", "mu.methods.general.salun")
    assert forbidden("mu.core.module", "tasks.digits")
    assert forbidden("tasks.digits", "callbacks.base")
    assert forbidden("callbacks.base", "mu.bench.study")
    assert forbidden("mu.core.module", "mu")
    assert not forbidden("mu.cli.main", "mu.utils.errors")
    assert not forbidden("callbacks.base", "mu.evaluation.media")


def test_no_circle_of_files() -> None:
    """Fails when two files, or more in a ring, import one another, at whatever depth."""
    graph = {
        module: {name for name, _ in imports(file) if name in MODULES and name != module}
        for module, file in MODULES.items()
    }
    assert circles(graph) == []


def test_a_circle_is_seen() -> None:
    """Fails when the search for circles misses one."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node (Tarjan), sorted."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in order:
                visit(target)
                lowest[node] = min(lowest[node], lowest[target])
            elif target in stack:
                lowest[node] = min(lowest[node], order[target])
        if lowest[node] == order[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                components.append(sorted(component))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return sorted(components)


def test_the_root_holds_wings_alone() -> None:
    """Fails when a file lies in the root of mu, or deeper than wing/folder/file."""
    entries = {path.name for path in (ROOT / "mu").iterdir() if path.name != "__pycache__"}
    assert entries == {*WINGS, "__init__.py", "__main__.py", "py.typed"}
    assert [file for file in FILES if len(file.relative_to(ROOT).parts) > 4] == []


def test_files_have_one_subject() -> None:
    """Fails when a file grows beyond 400 lines."""
    assert {
        dotted(file): count for file in FILES if (count := len(file.read_text().splitlines())) > 400
    } == {}


def test_values_of_configurations_fit_in_100_columns() -> None:
    """Fails when a mapping of several levels stands on one long line of a shipped file."""
    assert [
        f"{file.relative_to(ROOT)}:{line_number}"
        for file in sorted((ROOT / "configs").rglob("*.yaml"))
        for line_number, line in enumerate(file.read_text().splitlines(), 1)
        if len(line) > 100 and not line.lstrip().startswith("#")
    ] == []


TESTS = ROOT / "tests"
OTHER_TESTS = {
    "bad_input": "tables of inputs that every command refuses",
    "benchmarks": "measurements of time and memory",
    "contract": "promises that every method keeps",
    "docs": "examples and links of the documentation",
    "first_hour": "what a new user types, and what the commands must and must not say",
    "support": "helpers of tests",
}
"""Folders of tests that stand for no package."""
WHOLE_PACKAGES = {
    "backbones/export/test_cards.py": "code of the cards of every domain",
    "bench/executors/test_killed_studies.py": "killed studies under every executor",
    "bench/report/test_undefined_cells.py": "values that are undefined, in every form of a report",
    "bench/report/test_user_suite.py": "a suite from outside in a report",
    "bench/test_reuse.py": "runs and measurements that a study reuses",
    "callbacks/images/test_checks.py": "what suites of images check before a run",
    "callbacks/test_suite_files.py": "the files of configs/suite",
    "callbacks/test_suites.py": "every suite",
    "callbacks/test_two_ranks.py": "every suite on two ranks",
    "callbacks/text/test_attacks.py": "suites that attack language models",
    "callbacks/text/test_suites.py": "every suite of language models",
    "callbacks/text/test_undefined.py": "suites of language models where values are undefined",
    "cli/test_configurations.py": "the files of configs",
    "cli/test_nodes.py": "one run over several machines",
    "cli/test_real_size_files.py": "the files of configs for models of published size",
    "cli/test_runs.py": "commands in their processes",
    "cli/test_text_size_files.py": "the files of configs for language models of published size",
    "cli/test_user_files.py": "classes from files of users",
    "functional/test_examples.py": "worked examples of every function",
    "metrics/test_undefined.py": "every metric on destroyed models and empty parts",
}
"""Tests of a package as a whole, with what they test."""


def stands_for_a_module(test: Path) -> bool:
    """Whether a test file has the name of a module or folder at its place in the tree.

    An aspect may follow the name: `test_runner_text.py` stands for `runner.py`.
    """
    parts = test.relative_to(TESTS).parts[:-1]
    package = (ROOT / "mu" if parts[0] in WINGS else ROOT).joinpath(*parts)
    names = {path.stem for path in package.iterdir()} | {package.name}
    words = test.stem.removeprefix("test_").split("_")
    return any("_".join(words[:count]) in names for count in range(1, len(words) + 1))


def test_tests_mirror_the_tree() -> None:
    """Fails when a test file has no module of its name, or an exception is no longer one."""
    strays = {
        str(test.relative_to(TESTS))
        for test in TESTS.rglob("test_*.py")
        if test.parent != TESTS
        and test.relative_to(TESTS).parts[0] not in OTHER_TESTS
        and not stands_for_a_module(test)
    }
    assert strays == set(WHOLE_PACKAGES)


METHODS = sorted(
    file
    for folder in ("general", "vision", "diffusion", "language", "compat")
    for file in (ROOT / "mu" / "methods" / folder).glob("*.py")
    if file.name != "__init__.py"
)


@pytest.mark.parametrize("file", METHODS, ids=dotted)
def test_a_method_has_a_test_of_its_name(file: Path) -> None:
    """Fails when a method file has no tests/methods/<folder>/test_<method>.py with a test in it."""
    test = TESTS / "methods" / file.parent.name / f"test_{file.name}"
    assert test.is_file(), f"write {test.relative_to(ROOT)}"
    assert any(
        isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        for node in tree(test).body
    )


def loaded(code: str) -> set[str]:
    """Top-level packages in memory after running `code` in a new process."""
    process = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in process.stdout.split()}


def test_importing_mu_loads_nothing() -> None:
    """Fails when `import mu`, and so every command, pays for torch."""
    assert loaded("import mu") & set(HEAVY) == set()


def test_importing_methods_loads_no_model_library() -> None:
    """Fails when a method file names a backbone whose library is imported at its head."""
    # what lightning loads by itself does not count
    code = (
        "import sys, lightning.pytorch.cli, torchmetrics; before = set(sys.modules); import "
        "mu.methods, mu.backbones, mu.core; [getattr(package, name) for package in (mu.methods, "
        "mu.backbones, mu.core) for name in package.__all__]"
    )
    packages = loaded(f"{code}; [sys.modules.pop(name) for name in before if name != 'sys']")
    assert (
        packages
        & {
            "diffusers",
            "transformers",
            "open_clip",
            "timm",
            "torchvision",
            "sklearn",
            "matplotlib",
            "peft",
        }
        == set()
    )
    assert "mu" in packages


def test_the_public_names_are_there() -> None:
    """Fails when a name that `mu` promises stands in another file."""
    import mu
    from mu.core.edit import Edit
    from mu.core.module import UnlearningModule
    from mu.data.split import Split

    assert (mu.Edit, mu.UnlearningModule, mu.Split) == (Edit, UnlearningModule, Split)
    assert all(hasattr(mu, name) for name in mu.__all__)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = mu.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("file", FILES, ids=dotted)
def test_nothing_is_drawn_or_switched_on_import(file: Path) -> None:
    """Fails when importing a file switches gradients, seeds, or default types for everybody."""
    calls = {
        "set_grad_enabled",
        "manual_seed",
        "seed_everything",
        "set_default_dtype",
        "set_default_device",
        "set_num_threads",
    }
    for statement in tree(file).body:
        if isinstance(statement, ast.Expr | ast.Assign):
            for node in ast.walk(statement):
                if isinstance(node, ast.Call):
                    assert getattr(node.func, "attr", getattr(node.func, "id", "")) not in calls, (
                        f"line {node.lineno}"
                    )
