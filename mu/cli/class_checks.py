"""Class paths looked up in sources before anything heavy is imported, so that a wrong name is told
at once.

Only what sources can decide is refused: names in `mu`, its plugins and the working directory. Of
other packages nothing is said.
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
from mu.cli.source_files import SourceFile
from mu.config import plugins
from mu.config.classes import did_you_mean, subclasses
from mu.config.spec_faults import CATEGORIES, NOUNS
from mu.utils.errors import InputError

_BASES = {
    "model": ("mu.core.module", "UnlearningModule"),
    "data": ("mu.data.datamodule", "UnlearningDataModule"),
}
_UNREADABLE = ("globals(", "exec(", "sys.modules")
"""By these a file may have names that no reader sees."""


def refuse_unknown(config: Mapping[str, Any]) -> None:
    """Check every class path of a configuration.

    Raises:
        InputError: for the first one that names nothing.
    """
    for key, path in _class_paths(config):
        if "." in path:
            _check_path(key, path)
        elif key in _BASES:
            _check_bare(key, path)


def _class_paths(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Each class path, with the name of the argument that it stands for."""
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
        known = [
            f"{file.module}.{name}"
            for name in _modules_in(file)
            if did_you_mean(words[count], [name])
        ]
        near = did_you_mean(module, known, "check its name.")
        raise InputError(f"{path!r} cannot be imported: there is no module {module!r}; {near}")
    raise InputError(f"there is no {NOUNS.get(key, 'class')} {path!r}; {_near(key, path, file)}")


def _readable(root: str, path: str) -> bool:
    """Whether a package is one whose sources decide: ours, a plugin's, or the user's own.

    Raises:
        InputError: when there is no package of that name.
    """
    try:
        spec = find_spec(root)
    except (
        ImportError,
        ValueError,
    ):
        # ValueError: it is loaded, but came from no file (`__main__`)
        return False
    own = PathFinder.find_spec(root, [os.getcwd()])
    if spec is None and own is None:
        raise InputError(
            f"there is no module {root!r} for {path!r}; a file {root}.py is looked for in the "
            "working directory."
        )
    return root in ("mu", *plugins.packages()) or (
        own is not None and (spec is None or _same_file(own, spec))
    )


def _same_file(one: ModuleSpec, other: ModuleSpec) -> bool:
    return bool(
        one.origin and other.origin and Path(one.origin).resolve() == Path(other.origin).resolve()
    )


def _deepest(words: list[str]) -> tuple[int, SourceFile | None]:
    """How many of the words, from the left, are modules, and the source of the last one, if it has
    one.
    """
    spec = find_spec(words[0]) or PathFinder.find_spec(words[0], [os.getcwd()])
    count = 1
    assert spec is not None
    while count < len(words) and (
        inner := PathFinder.find_spec(
            ".".join(words[: count + 1]), list(spec.submodule_search_locations or [])
        )
    ):
        spec = inner
        count = count + 1
    if not (spec.origin or "").endswith(".py"):
        return count, None
    return count, SourceFile(
        ".".join(words[:count]),
        Path(str(spec.origin)),
        from_user=words[0] not in ("mu", *plugins.packages()),
    )


def names_of(file: SourceFile) -> set[str] | None:
    """Names at the top level of a module, those that it imports included; None where its source
    does not tell all of them.
    """
    if any(word in file.text for word in _UNREADABLE):
        return None
    names: set[str] = set()
    for entry in file.tree.body:
        defined = isinstance(entry, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        # what stands deeper may be one too many, never one too few
        for node in [entry] if defined else ast.walk(entry):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    # it makes names on demand; those that it promises stand in `__all__`
    if "__getattr__" in names and not file.lazy:
        promised = _promised(file)
        return None if promised is None else names | promised
    return None if "*" in names else names


def _promised(file: SourceFile) -> set[str] | None:
    """`__all__`, where it is written out."""
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
    """Packages that a file cannot do without."""
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
    """A bare name is one of `mu`'s or of a plugin's, or of a class that the calling program has
    made.
    """
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
    raise InputError(f"there is no {NOUNS[key]} {name!r}; {_near(key, name)}")


# ---- what was meant ------------------------------------------------------------------------------


def _near(key: str, path: str, file: SourceFile | None = None) -> str:
    """What may have been meant, or where to look."""
    name = path.rpartition(".")[2]
    if file is not None and file.from_user:
        there = [known for known in file.classes if not known.startswith("_")]
        has = (
            f"{file.path.name} has {', '.join(there)}."
            if there
            else f"{file.path.name} has no class."
        )
        return did_you_mean(
            path, [f"{file.module}.{known}" for known in there if did_you_mean(name, [known])], has
        )
    sources = Sources(Path())
    parts = sources.components(CATEGORIES[key]) if key in CATEGORIES else []
    mine = [part.path for part in parts if part.from_user and part.name == name]
    if mine:
        return f"did you mean {' or '.join(mine)}?"
    known = [part.name for part in parts if not part.from_user] or [
        entry
        for found in sources.files.values()
        if not found.from_user
        for entry in found.headers
        if not entry.startswith("_")
    ]
    return did_you_mean(
        name,
        known,
        f"mu list {CATEGORIES[key]} lists them." if key in CATEGORIES else "check its name.",
    )


def _modules_in(file: SourceFile) -> list[str]:
    """The modules of a package; none in a plain file."""
    entries = file.path.parent.iterdir() if file.path.name == "__init__.py" else ()
    return [
        entry.stem
        for entry in entries
        if not entry.name.startswith("_") and (entry.suffix == ".py" or entry.is_dir())
    ]
