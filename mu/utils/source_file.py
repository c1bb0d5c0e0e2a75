"""Python source file read without importing it: class headers, imports, syntax tree."""

from __future__ import annotations

import ast
import re
import warnings
from functools import cached_property
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
