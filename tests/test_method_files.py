"""Size and privacy of method files: one paper, one small file, on public bases."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

METHODS = Path(__file__).parents[1] / "mu" / "methods"
FILES = sorted(
    path
    for folder in ("general", "vision", "diffusion", "language", "compat")
    for path in (METHODS / folder).glob("*.py")
    if path.name != "__init__.py"
)
LINES = 150
LONGER = {"sfd.py": 250}
"""Files that may have more lines: three networks."""

on_files = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: path.relative_to(METHODS).as_posix()
)


def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def private(name: str) -> bool:
    """Whether a name begins with one underscore, or two without being a special method's."""
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def imported_from_mu(node: ast.AST) -> list[str]:
    """Names that an import statement takes from `mu`."""
    if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mu":
        return [alias.name for alias in node.names]
    return []


def private_attributes(cls: ast.ClassDef) -> tuple[set[str], set[str]]:
    """Private members that a class defines, and those that it uses of `self` or `super()`."""
    defined = {node.name for node in cls.body if isinstance(node, ast.FunctionDef)}
    used = set()
    for node in ast.walk(cls):
        if not isinstance(node, ast.Attribute) or not private(node.attr):
            continue
        of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        of_super = (
            isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Name)
            and node.value.func.id == "super"
        )
        if of_self and isinstance(node.ctx, ast.Store):
            defined.add(node.attr)
        if of_self or of_super:
            used.add(node.attr if of_self else f"super().{node.attr}")
    return defined, used


def test_the_check_sees_a_private_member_of_a_base() -> None:
    """Mutations: attributes of super(), and those set by the class itself, are mixed up."""
    text = """
class Method(Base):
    def objective(self):
        self._own = 1
        return self._own + self._of_base + super()._of_base()
"""
    (cls,) = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    defined, used = private_attributes(cls)
    assert used - defined == {"_of_base", "super()._of_base"}


@on_files
def test_a_method_file_is_short(path: Path) -> None:
    """Fails when machinery that others could share stands in a method's file."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    limit = LONGER.get(path.name, LINES)
    assert lines <= limit, f"{lines} lines; move what others share to mu/methods/bases"


@on_files
def test_no_private_name_of_another_file(path: Path) -> None:
    """Fails when a file imports a private name, or a class derives from an underscored class that
    the file does not define.
    """
    module = tree(path)
    names = [name for node in ast.walk(module) for name in imported_from_mu(node)]
    assert [name for name in names if private(name)] == []
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    local = {cls.name for cls in classes}
    bases = {
        base.rpartition(".")[2]
        for cls in classes
        for base in (ast.unparse(node).partition("[")[0] for node in cls.bases)
    }
    assert {base for base in bases - local if private(base)} == set()


@on_files
def test_no_private_member_of_a_base(path: Path) -> None:
    """Fails when a method reaches into its base: a private attribute of `self` that its own file
    does not set or define.
    """
    classes = [node for node in tree(path).body if isinstance(node, ast.ClassDef)]
    pairs = [private_attributes(cls) for cls in classes]
    defined = set().union(*(names for names, _ in pairs))
    for _, used in pairs:
        assert used - defined == set()


def test_npo_is_read_in_three_files() -> None:
    """The equation of NPO: the method's file, the loss that it imports, and the base that adds the
    retain term; that base imports no method base of its own.
    """
    path = METHODS / "language" / "npo.py"
    modules = {
        node.module
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith(("mu.functional.", "mu.methods.bases."))
    }
    assert modules == {"mu.functional.preference", "mu.methods.bases.forget_retain"}
    base = METHODS / "bases" / "forget_retain.py"
    classes = {node.name: node for node in tree(base).body if isinstance(node, ast.ClassDef)}
    name = "ReferenceRatioMethod"
    while name in classes:
        (parent,) = classes[name].bases
        name = ast.unparse(parent)
    assert name == "UnlearningModule"
