"""Static look at the class of a dotted path: its bases, read from source files before any import.

A path may come from a stranger's file (a checkpoint, a configuration, a study), and importing a
module runs it. So the source of a module that is not loaded yet is parsed first: it must define a
class that derives from what is needed.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mu.utils.errors import InputError
from mu.utils.source_file import SourceFile

Bases = tuple[type, ...] | None
PLUGINS = "mu.plugins"
"""Entry-point group of the packages that extend `mu`."""
_LIBRARIES = ("torch", "lightning", "pytorch_lightning")
_HIDDEN = ("__getattr__", "globals(", "exec(", "sys.modules")
"""Code by which a module may have names that its source does not show."""


@cache
def trusted_packages() -> frozenset[str]:
    """Import names of `mu` and of its installed plugins."""
    return frozenset(
        {"mu", *(point.value.partition(":")[0] for point in entry_points(group=PLUGINS))}
    )


def may_import(path: str, bases: Bases = (), functions: bool = False) -> bool:
    """Whether a path may be imported, because it leads to a class of one of some bases.

    True for modules that are loaded already and for those of `mu` and its plugins, whose import
    runs nothing new. Otherwise the sources decide; those of an installed package that do not show
    the name (compiled, or made on demand) count as good.

    Args:
        path: dotted path of a class.
        bases: classes of which the class must derive from one; any class where empty; None for any
            class that derives from one of `mu`, its plugins, torch or Lightning.
        functions: whether a function will do as well.

    Example:
        >>> may_import("this.Zen")
        False
        >>> may_import("argparse.ArgumentParser")
        True
    """
    verdict = _derives(path, bases, functions, frozenset())
    return verdict is not False


def imported_class(path: str, bases: tuple[type, ...] = ()) -> Any:
    """Object at a dotted path, imported only when `may_import` allows it.

    Raises:
        InputError: when there is no such name, or the source shows another sort of object.
    """
    module, _, name = path.rpartition(".")
    try:
        if not may_import(path, bases):
            if module_file(path) is None:
                raise ImportError(f"no module {module!r} is installed or in the working directory")
            raise InputError(
                f"{path!r} is not imported: its source holds no such class"
                f"{_of(bases)}; correct the name in the file that asks for it."
            )
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"there is no class {path!r} ({error}).") from error


def _of(bases: tuple[type, ...]) -> str:
    names = [base.__name__ for base in bases if base is not object]
    return f" that derives from {' or '.join(names)}" if names else ""


def _derives(path: str, bases: Bases, functions: bool, seen: frozenset[str]) -> bool | None:
    """Whether the class at a path derives from a base; None where no source tells."""
    words = path.split(".")
    if path in seen or len(words) < 2 or not all(word.isidentifier() for word in words):
        return False
    module, name = ".".join(words[:-1]), words[-1]
    # 1. nothing new would run
    if module in sys.modules or words[0] in trusted_packages():
        return _is_subclass(path, bases) if seen else True
    # 2. the source of the module
    spec = _module_spec(words[:-1])
    if spec is None:
        return False
    user_file = _in_working_directory(words[0])
    if not (spec.origin or "").endswith(".py"):
        return False if user_file else None  # compiled, or a namespace
    return _in_file(
        SourceFile(module, Path(str(spec.origin)), from_user=user_file),
        name,
        bases,
        functions,
        seen | {path},
    )


def _is_subclass(path: str, bases: Bases) -> bool | None:
    """Whether a class of a loaded or trusted module derives from a base."""
    if bases is None:
        return path.partition(".")[0] in (*trusted_packages(), *_LIBRARIES)
    module, _, name = path.rpartition(".")
    try:
        value = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return False
    return isinstance(value, type) and (not bases or issubclass(value, bases))


def _in_file(
    file: SourceFile,
    name: str,
    bases: tuple[type, ...] | None,
    functions: bool,
    seen: frozenset[str],
) -> bool | None:
    nodes = {node.name: node for node in _definitions(file.tree)}
    node = nodes.get(name)
    # 1. defined in this file
    if isinstance(node, ast.ClassDef):
        if bases is not None and (not bases or object in bases):
            return True
        parents = [ast.unparse(base).partition("[")[0] for base in node.bases]
        verdicts = [
            _derives(parent, bases, False, seen) if parent else False
            for parent in (_absolute_name(file, base) for base in parents)
        ]
        return True if True in verdicts else None if None in verdicts else False
    if node is not None:
        return functions
    # 2. imported from another
    sources = [_absolute_name(file, name)] if name in file.imported else []
    sources += [f"{source}.{name}" for source, word in file.imported.values() if word == "*"]
    verdicts = [_derives(source, bases, functions, seen) for source in sources if source]
    if True in verdicts:
        return True
    if None in verdicts:
        return None
    # 3. made on demand, in an installed package
    hidden = any(word in file.text for word in _HIDDEN)
    return None if hidden and not sources and not file.from_user else False


def _definitions(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Classes and functions at the top level of a module, inside `if` and `try` too."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node
        elif isinstance(node, ast.If | ast.Try):
            pending += [*node.body, *node.orelse]


def _absolute_name(file: SourceFile, name: str) -> str:
    """Dotted path behind a name in a file: of an import, or of the file itself."""
    first, _, rest = name.partition(".")
    if first in file.imported:
        return ".".join(word for word in (*file.imported[first], rest) if word)
    return f"{file.module}.{name}"


def _module_spec(words: list[str]) -> ModuleSpec | None:
    """Spec of a module, found without importing its packages."""
    try:
        spec = find_spec(words[0]) or PathFinder.find_spec(words[0], [os.getcwd()])
    except (ImportError, ValueError):
        return None
    for count in range(2, len(words) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        folders = list(spec.submodule_search_locations)
        spec = PathFinder.find_spec(".".join(words[:count]), folders)
    return spec


def _in_working_directory(root: str) -> bool:
    """Whether a package is the user's own file or folder rather than an installed one."""
    user_spec = PathFinder.find_spec(root, [os.getcwd()])
    if user_spec is None:
        return False
    spec = find_spec(root)
    if spec is None or not spec.origin or not user_spec.origin:
        return spec is None
    return Path(spec.origin).resolve() == Path(user_spec.origin).resolve()


def module_file(path: str) -> SourceFile | None:
    """Source file of the module of a class path; None where there is none."""
    words = path.split(".")[:-1]
    spec = _module_spec(words) if all(word.isidentifier() for word in words) and words else None
    if spec is None or not (spec.origin or "").endswith(".py"):
        return None
    return SourceFile(".".join(words), Path(str(spec.origin)), _in_working_directory(words[0]))
