"""Python source files of `mu`, its plugins and the user, read without importing them.

A pattern reads the class headers and imports of every file; a file is parsed only when more is
asked of it. Of the user's files, those at the top of the working directory count that import one of
the packages, or one another.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

_HEADER = re.compile(r"^class\s+(\w+)\s*(?:\(([^)]*)\))?\s*:", re.M)
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+([\w., \t]+))", re.M)


class SourceFile:
    """A Python source file, parsed on first use.

    Args:
        module: its import name.
        path: its path on disk.
        from_user: whether it belongs to the user rather than to `mu` or a plugin.
    """

    def __init__(self, module: str, path: Path, from_user: bool = False) -> None:
        self.module = module
        self.path = path
        self.from_user = from_user
        self.text = path.read_text(encoding="utf-8-sig", errors="replace")
        stub = path.with_suffix(".pyi")
        self.lazy = path.name == "__init__.py" and stub.is_file()
        """Whether its names stand in a stub, and are imported on first use."""
        if self.lazy:
            self.text += stub.read_text(encoding="utf-8")

    @cached_property
    def headers(self) -> dict[str, list[str]]:
        """Bare names of the base classes by class name.

        Aliases in a user's file are replaced by the original names.
        """
        return self._parsed_headers() if self.from_user else self._matched_headers()

    def _parsed_headers(self) -> dict[str, list[str]]:
        headers = {}
        for name, node in self.classes.items():
            bases = [ast.unparse(base).partition("[")[0] for base in node.bases]
            originals = [self.imported.get(base, ("", ""))[1] or base for base in bases]
            headers[name] = [base.rpartition(".")[2] for base in originals]
        return headers

    def _matched_headers(self) -> dict[str, list[str]]:
        headers = {}
        for match in _HEADER.finditer(self.text):
            bases = [
                re.sub(r"\[.*", "", base).strip().rpartition(".")[2]
                for base in (match[2] or "").split(",")
                if "=" not in base
            ]
            headers[match[1]] = [base for base in bases if base]
        return headers

    @cached_property
    def _parsed(self) -> tuple[ast.Module, str]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escape sequences in the file's strings
                return ast.parse(self.text), ""
        except (SyntaxError, ValueError, RecursionError) as error:  # ValueError: a null byte
            line = getattr(error, "lineno", None)
            message = getattr(error, "msg", None) or str(error)
            if line:
                message += f" in line {line}"
            return ast.Module(body=[], type_ignores=[]), message

    @property
    def tree(self) -> ast.Module:
        """Syntax tree; empty where the file is not valid Python."""
        return self._parsed[0]

    @property
    def fault(self) -> str:
        """Syntax error with its line; empty for valid Python."""
        return self._parsed[1]

    @property
    def imported_packages(self) -> set[str]:
        """Top-level packages of its import statements, read by a pattern."""
        statements = [match[1] or match[2] for match in _IMPORT.finditer(self.text)]
        return {
            word.strip().partition(".")[0].partition(" ")[0]
            for statement in statements
            for word in statement.split(",")
        }

    @cached_property
    def classes(self) -> dict[str, ast.ClassDef]:
        """Classes at the top level, by name."""
        return {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)}

    @cached_property
    def imported(self) -> dict[str, tuple[str, str]]:
        """Module and original name of each imported name; the name is empty for a module itself."""
        sources: dict[str, tuple[str, str]] = {}
        pending = list(self.tree.body)
        while pending:
            node = pending.pop()
            if isinstance(node, ast.If | ast.Try):  # TYPE_CHECKING, optional libraries
                pending += node.body + node.orelse
            elif isinstance(node, ast.ImportFrom):
                module = self._absolute(node)
                for alias in node.names:
                    sources[alias.asname or alias.name] = (module, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    package = alias.name.partition(".")[0]
                    sources[alias.asname or package] = (alias.name if alias.asname else package, "")
        return sources

    def _absolute(self, node: ast.ImportFrom) -> str:
        """Absolute name of the module that a `from` statement imports from."""
        package = self.module if self.path.name == "__init__.py" else self.module.rpartition(".")[0]
        words = package.split(".")
        parents = words[: len(words) - (node.level - 1)] if node.level else []
        return ".".join([*parents, *([node.module] if node.module else [])])


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
