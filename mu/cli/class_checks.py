"""Class paths of a configuration, checked against source files before anything heavy is imported.

Only paths that source files decide are refused: names in `mu`, its plugins and the working
directory. Paths in other packages pass.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mu.cli.catalogue import Sources
from mu.config import plugins
from mu.config.class_faults import CATEGORIES, NOUNS
from mu.config.classes import did_you_mean, subclasses
from mu.utils.errors import InputError
from mu.utils.source_file import SourceFile

_BASES = {
    "model": ("mu.core.module", "UnlearningModule"),
    "data": ("mu.data.datamodule", "UnlearningDataModule"),
}
_UNREADABLE = ("globals(", "exec(", "sys.modules")
"""Code by which a module may have names that its source does not show."""


def refuse_unknown(config: Mapping[str, Any]) -> None:
    """Check every class path of a configuration.

    Raises:
        InputError: for the first path that names no class.
    """
    for key, path in _class_paths(config):
        if "." in path:
            _check_path(key, path)
        elif key in _BASES:
            _check_bare(key, path)


def _class_paths(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Class paths of a configuration, with the name of the argument that takes each."""
    if isinstance(value, list):
        for entry in value:
            yield from _class_paths(entry, key)
    elif isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            yield key, value["class_path"]
        for name, entry in value.items():
            yield from _class_paths(entry, key if name == "init_args" else str(name))


# ---- by path -------------------------------------------------------------------------------------


def _check_path(key: str, path: str) -> None:
    words = path.split(".")
    if not all(word.isidentifier() for word in words) or not _readable(words[0], path):
        return
    count, file = _deepest(words)
    if count == len(words) or file is None:
        return
    if file.fault:
        raise InputError(f"{file.path.name} cannot be imported: {file.fault}.")
    names = names_of(file)
    if names is None or words[count] in names or not all(map(_importable, _imports(file))):
        return
    if count < len(words) - 1:
        module = ".".join(words[: count + 1])
        similar = [
            f"{file.module}.{name}"
            for name in _modules_in(file)
            if did_you_mean(words[count], [name])
        ]
        hint = did_you_mean(module, similar, "check its name.")
        raise InputError(f"{path!r} cannot be imported: there is no module {module!r}; {hint}")
    raise InputError(
        f"there is no {NOUNS.get(key, 'class')} {path!r}; {_suggestion(key, path, file)}"
    )


def _readable(root: str, path: str) -> bool:
    """Whether source files decide about a package: ours, a plugin's, or the user's.

    Raises:
        InputError: for a package that does not exist.
    """
    try:
        spec = find_spec(root)
    except (
        ImportError,
        ValueError,
    ):
        # ValueError: it is loaded, but not from a file (`__main__`)
        return False
    user_spec = PathFinder.find_spec(root, [os.getcwd()])
    if spec is None and user_spec is None:
        raise InputError(
            f"there is no module {root!r} for {path!r}; a file {root}.py is looked for in the "
            "working directory."
        )
    return root in ("mu", *plugins.packages()) or (
        user_spec is not None and (spec is None or _same_file(user_spec, spec))
    )


def _same_file(first: ModuleSpec, second: ModuleSpec) -> bool:
    if not first.origin or not second.origin:
        return False
    return Path(first.origin).resolve() == Path(second.origin).resolve()


def _deepest(words: list[str]) -> tuple[int, SourceFile | None]:
    """Number of leading words that are modules, and the source file of the last of them."""
    spec = find_spec(words[0]) or PathFinder.find_spec(words[0], [os.getcwd()])
    count = 1
    assert spec is not None
    while count < len(words) and (
        inner := PathFinder.find_spec(
            ".".join(words[: count + 1]), list(spec.submodule_search_locations or [])
        )
    ):
        spec = inner
        count += 1
    if not (spec.origin or "").endswith(".py"):
        return count, None
    return count, SourceFile(
        ".".join(words[:count]),
        Path(str(spec.origin)),
        from_user=words[0] not in ("mu", *plugins.packages()),
    )


def names_of(file: SourceFile) -> set[str] | None:
    """Names at the top level of a module, imports included; None where its source hides some."""
    if any(word in file.text for word in _UNREADABLE):
        return None
    names: set[str] = set()
    for entry in file.tree.body:
        defined = isinstance(entry, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        # names inside other statements may be one too many, never one too few
        for node in [entry] if defined else ast.walk(entry):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    # names that `__getattr__` makes on demand are listed in `__all__`
    if "__getattr__" in names and not file.lazy:
        exported = _exported(file)
        return None if exported is None else names | exported
    return None if "*" in names else names


def _exported(file: SourceFile) -> set[str] | None:
    """Names in `__all__`; None where it is not a literal."""
    for node in file.tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            try:
                return set(ast.literal_eval(node.value))
            except ValueError:
                return None
    return None


def _imports(file: SourceFile) -> set[str]:
    """Packages that a file imports at its top level."""
    modules = [
        alias.name
        for node in file.tree.body
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    modules += [
        node.module
        for node in file.tree.body
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
    ]
    return {module.partition(".")[0] for module in modules}


def _importable(root: str) -> bool:
    try:
        return (find_spec(root) or PathFinder.find_spec(root, [os.getcwd()])) is not None
    except (ImportError, ValueError):
        return True


# ---- by bare name --------------------------------------------------------------------------------


def _check_bare(key: str, name: str) -> None:
    """Refuse a bare name that no class of `mu`, a plugin or the calling program has."""
    module, base = _BASES[key]
    if module in sys.modules and any(
        cls.__name__ == name for cls in subclasses(getattr(sys.modules[module], base))
    ):
        return
    if (
        len({point.dist.name if point.dist else "" for point in entry_points(group=plugins.GROUP)})
        > 1
    ):
        return  # somebody's plugin may import classes from anywhere
    word = re.compile(rf"\b{re.escape(name)}\b")
    for file in Sources().files.values():
        if word.search(file.text) and ((names := names_of(file)) is None or name in names):
            return
    raise InputError(f"there is no {NOUNS[key]} {name!r}; {_suggestion(key, name)}")


# ---- suggestions ---------------------------------------------------------------------------------


def _suggestion(key: str, path: str, file: SourceFile | None = None) -> str:
    """Similar class names, or where to look for them.

    Args:
        key: argument that takes the class.
        path: class path or bare name that names nothing.
        file: source file that the path leads to.
    """
    name = path.rpartition(".")[2]
    # 1. in the user's file
    if file is not None and file.from_user:
        classes = [cls for cls in file.classes if not cls.startswith("_")]
        similar = [f"{file.module}.{cls}" for cls in classes if did_you_mean(name, [cls])]
        listing = ", ".join(classes) or "no class"
        return did_you_mean(path, similar, f"{file.path.name} has {listing}.")
    # 2. in another of the user's files
    sources = Sources(Path())
    category = CATEGORIES.get(key)
    components = sources.components(category) if category else []
    paths = [entry.path for entry in components if entry.from_user and entry.name == name]
    if paths:
        return f"did you mean {' or '.join(paths)}?"
    # 3. in mu and its plugins
    names = [entry.name for entry in components if not entry.from_user] or [
        cls
        for source in sources.files.values()
        if not source.from_user
        for cls in source.headers
        if not cls.startswith("_")
    ]
    return did_you_mean(
        name, names, f"mu list {category} lists them." if category else "check its name."
    )


def _modules_in(file: SourceFile) -> list[str]:
    """Names of a package's modules; empty for a module of one file."""
    entries = file.path.parent.iterdir() if file.path.name == "__init__.py" else ()
    return [
        entry.stem
        for entry in entries
        if not entry.name.startswith("_") and (entry.suffix == ".py" or entry.is_dir())
    ]
