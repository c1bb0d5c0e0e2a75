"""Python source files of `mu`, its plugins and the user, read without importing them.

A pattern reads the class headers and imports of every file; a file is parsed only when more is
asked of it. Of the user's files, those at the top of the working directory count that import one of
the packages, or one another.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from mu.utils.source_file import SourceFile


def package_files(package: str) -> Iterator[SourceFile]:
    """Source files of an installed package, or of a module of one file."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        yield SourceFile(package, origin)
        return
    for path in sorted(origin.parent.rglob("*.py")):
        words = path.relative_to(origin.parent).with_suffix("").parts
        if words[-1] == "__init__":
            words = words[:-1]
        yield SourceFile(".".join([package, *words]), path)


def user_files(folder: Path, packages: set[str]) -> list[SourceFile]:
    """Files of a folder that import one of the packages, directly or through one another.

    Files that an import would not find, because an installed module has their name, are left out.
    """
    pending = []
    for path in sorted(folder.glob("*.py")):
        if path.stem.isidentifier() and path.stem not in packages:
            with suppress(OSError):  # a dangling link, a folder of that name
                pending.append(SourceFile(path.stem, path, from_user=True))
    modules = set(packages)
    files = []
    while more := [file for file in pending if file.imported_packages & modules]:
        files += more
        modules |= {file.module for file in more}
        pending = [file for file in pending if file not in more]
    return [file for file in files if not _is_hidden(file)]


def _is_hidden(file: SourceFile) -> bool:
    """Whether an installed module has the file's name: the working directory is searched last."""
    specs = (finder.find_spec(file.module, None) for finder in sys.meta_path)
    spec = next(filter(None, specs), None)
    if spec is None:
        return False
    return spec.origin is None or Path(spec.origin).resolve() != file.path.resolve()
