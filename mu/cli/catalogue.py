"""What methods, tasks and other parts there are, read from their sources: nothing is imported.

A pattern finds which class derives from which in every file of `mu` and of its plugins; only files
that matter are then parsed. Of the user's own files, those at the top of the working directory are
read that import one of these packages, or one another.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from mu.config import plugins

ROOTS = {
    "methods": "UnlearningModule",
    "tasks": "UnlearningDataModule",
    "backbones": "Backbone",
    "suites": "Suite",
    "attacks": "Attack",
    "masks": "WeightMask",
}
"""Kind of part, and the name of the class that all of that kind derive from."""
_HEADER = re.compile(r"^class\s+(\w+)\s*(?:\(([^)]*)\))?\s*:", re.M)
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+([\w., \t]+))", re.M)
Function = ast.FunctionDef | ast.AsyncFunctionDef


class File:
    """A source file, parsed when it is first asked for more than its class headers.

    Args:
        module: its import name.
        path: where it lies.
        own: whether it is the user's.
    """

    def __init__(self, module: str, path: Path, own: bool = False) -> None:
        self.module = module
        self.path = path
        self.own = own
        self.text = path.read_text(encoding="utf-8-sig", errors="replace")
        stub = path.with_suffix(".pyi")
        self.lazy = path.name == "__init__.py" and stub.is_file()
        """Whether its names stand in a stub, and are imported on first use."""
        if self.lazy:
            self.text += stub.read_text(encoding="utf-8")

    @cached_property
    def headers(self) -> dict[str, list[str]]:
        """Bases' bare names by class; in a user's file by the names that they have where they come
        from.
        """
        if self.own:
            written = {
                name: [ast.unparse(base).partition("[")[0] for base in node.bases]
                for name, node in self.classes.items()
            }
            return {
                name: [
                    (self.imported.get(base, ("", ""))[1] or base).rpartition(".")[2]
                    for base in bases
                ]
                for name, bases in written.items()
            }
        found = {}
        for match in _HEADER.finditer(self.text):
            bases = [
                re.sub(r"\[.*", "", base).strip().rpartition(".")[2]
                for base in (match[2] or "").split(",")
                if "=" not in base
            ]
            found[match[1]] = [base for base in bases if base]
        return found

    @cached_property
    def _parsed(self) -> tuple[ast.Module, str]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an escape that is none, in somebody's text
                return ast.parse(self.text), ""
        except (SyntaxError, ValueError, RecursionError) as error:  # ValueError: a null byte
            place = (
                f" in line {error.lineno}"
                if isinstance(error, SyntaxError) and error.lineno
                else ""
            )
            return ast.Module(
                body=[], type_ignores=[]
            ), f"{getattr(error, 'msg', None) or error}{place}"

    @property
    def tree(self) -> ast.Module:
        """The parsed file; an empty one where it is not valid Python."""
        return self._parsed[0]

    @property
    def fault(self) -> str:
        """Why it cannot be parsed, and in which line; empty where it can."""
        return self._parsed[1]

    @property
    def roots(self) -> set[str]:
        """Packages that it imports from, by a pattern: what stands first in each import."""
        found = [match[1] or match[2] for match in _IMPORT.finditer(self.text)]
        return {
            word.strip().partition(".")[0].partition(" ")[0]
            for entry in found
            for word in entry.split(",")
        }

    @cached_property
    def classes(self) -> dict[str, ast.ClassDef]:
        """Classes at the top level."""
        return {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)}

    @cached_property
    def imported(self) -> dict[str, tuple[str, str]]:
        """Module and name behind each name that the file imports; the name is empty where it is the
        module itself.
        """
        package = self.module if self.path.name == "__init__.py" else self.module.rpartition(".")[0]
        found = {}
        waiting = list(self.tree.body)
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.If | ast.Try):  # TYPE_CHECKING, optional libraries
                waiting += node.body + node.orelse
            elif isinstance(node, ast.ImportFrom):
                parents = (
                    package.split(".")[: len(package.split(".")) - (node.level - 1)]
                    if node.level
                    else []
                )
                module = ".".join([*parents, *([node.module] if node.module else [])])
                found |= {alias.asname or alias.name: (module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {
                    alias.asname or alias.name.partition(".")[0]: (
                        alias.name if alias.asname else alias.name.partition(".")[0],
                        "",
                    )
                    for alias in node.names
                }
        return found


@dataclass(frozen=True)
class Component:
    """One class.

    Attributes:
        name: the class's.
        path: the shortest import path that exports it.
        file: where it is defined.
        line: the class's nodes, itself first, then its bases as far as sources are known.
    """

    name: str
    path: str
    file: File
    line: tuple[tuple[File, ast.ClassDef], ...]

    @property
    def node(self) -> ast.ClassDef:
        """Its own definition."""
        return self.line[0][1]

    @property
    def own(self) -> bool:
        """Whether it is the user's."""
        return self.file.own

    @property
    def about(self) -> str:
        """First line of its docstring."""
        return (
            (ast.get_docstring(self.node) or ast.get_docstring(self.file.tree) or "")
            .split("\n\n")[0]
            .replace("\n", " ")
            .strip()
        )

    @cached_property
    def _definitions(self) -> dict[str, tuple[ast.ClassDef, ast.expr | Function]]:
        """Class attributes and methods by name, with the class of the line that has the first
        definition.
        """
        found: dict[str, tuple[ast.ClassDef, ast.expr | Function]] = {}
        for _, node in self.line:
            for entry in node.body:
                if isinstance(entry, Function):
                    found.setdefault(entry.name, (node, entry))
                elif isinstance(entry, ast.Assign | ast.AnnAssign) and entry.value is not None:
                    targets = entry.targets if isinstance(entry, ast.Assign) else [entry.target]
                    for target in targets:
                        if isinstance(target, ast.Name):
                            found.setdefault(target.id, (node, entry.value))
        return found

    def attribute(self, name: str) -> ast.expr | Function | None:
        """What a class attribute or method is defined as, by the first class of the line that has
        it.
        """
        return self._definitions[name][1] if name in self._definitions else None

    @property
    def abstract(self) -> bool:
        """Whether a method is still missing: the definition in force is `@abstractmethod` or does
        nothing but raise.
        """
        stubs = {
            name
            for name, (_, found) in self._definitions.items()
            if isinstance(found, Function) and _is_stub(found)
        }
        if "objective" in stubs and self._definitions["training_step"][0].name in ROOTS.values():
            return True  # a method overrides the one or the other
        return bool(stubs - {"objective"})

    def constructors(self) -> Iterator[tuple[ast.ClassDef, ast.FunctionDef]]:
        """The constructors that arguments reach: its own, and while `**kwargs` passes them on,
        those of its bases.
        """
        for _, node in self.line:
            own = next(
                (
                    entry
                    for entry in node.body
                    if isinstance(entry, ast.FunctionDef) and entry.name == "__init__"
                ),
                None,
            )
            if own is not None:
                yield node, own
                if own.args.kwarg is None:
                    return

    @property
    def backbone(self) -> str:
        """The annotation of the constructor's `backbone`; empty where there is none."""
        for _, init in self.constructors():
            for argument in (*init.args.args, *init.args.kwonlyargs):
                if argument.arg == "backbone" and argument.annotation is not None:
                    return ast.unparse(argument.annotation)
        return ""


def _is_stub(function: Function) -> bool:
    if any("abstractmethod" in ast.unparse(decorator) for decorator in function.decorator_list):
        return True
    body = [
        entry
        for entry in function.body
        if not (isinstance(entry, ast.Expr) and isinstance(entry.value, ast.Constant))
    ]
    # a refusal (InputError) is an answer; what is still missing says so by these
    return (
        len(body) == 1
        and isinstance(body[0], ast.Raise)
        and any(name in ast.unparse(body[0]) for name in ("TypeError(", "NotImplementedError"))
    )


class Sources:
    """Every source file of `mu` and of its plugins.

    Args:
        folder: the working directory, whose own files are read too; None leaves them out.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.packages = ["mu", *plugins.packages()]
        self.files = {file.module: file for package in self.packages for file in _files_of(package)}
        if folder is not None:
            self.files |= {file.module: file for file in _own_files(folder, set(self.packages))}

    @property
    def faults(self) -> list[str]:
        """A sentence about each of the user's files that cannot be parsed."""
        return [
            f"{file.path.name} is left out: {file.fault}."
            for file in self.files.values()
            if file.own and file.fault
        ]

    def parts(self, kind: str) -> list[Component]:
        """The public, concrete classes of a kind, by name, the user's own last."""
        names = {ROOTS[kind]}
        while (
            more := {
                name
                for file in self.files.values()
                for name, bases in file.headers.items()
                if names & set(bases)
            }
            - names
        ):
            names |= more
        found = [
            self._part(file, name)
            for file in self.files.values()
            for name, bases in file.headers.items()
            if name in names and bases and not name.startswith("_") and name != ROOTS[kind]
        ]
        concrete = [
            part
            for part in found
            if part is not None
            and any(n.name == ROOTS[kind] for _, n in part.line)
            and not part.abstract
        ]
        return sorted(concrete, key=lambda part: (part.own, part.name.lower()))

    def _part(self, file: File, name: str) -> Component | None:
        if name not in file.classes:
            return None
        return Component(name, self._public(file.module, name), file, tuple(self._line(file, name)))

    def _public(self, module: str, name: str) -> str:
        words = module.split(".")
        for cut in range(1, len(words)):
            package = self.files.get(".".join(words[:cut]))
            if package is not None and name in package.text and name in package.imported:
                return f"{package.module}.{name}"
        return f"{module}.{name}"

    def _line(self, file: File, name: str) -> list[tuple[File, ast.ClassDef]]:
        """The class and its bases, each once, children before parents."""
        line: list[tuple[File, ast.ClassDef]] = []
        waiting = [(file, name)]
        while waiting:
            here, wanted = waiting.pop(0)
            found = self._find(here, wanted)
            if found is None:
                continue
            where, node = found
            line = [*(entry for entry in line if entry[1] is not node), found]
            waiting += [(where, ast.unparse(base).partition("[")[0]) for base in node.bases]
        return line

    def _find(self, file: File, name: str) -> tuple[File, ast.ClassDef] | None:
        seen = set()
        while (file.module, name) not in seen:
            seen.add((file.module, name))
            if name in file.classes:
                return file, file.classes[name]
            target = self._behind(file, name)
            if target is None:
                return None
            file, name = target
        return None

    def _behind(self, file: File, name: str) -> tuple[File, str] | None:
        """Where a name that a file imports, perhaps a dotted one, is looked for next."""
        first, _, rest = name.partition(".")
        if first not in file.imported:
            return None
        words = ".".join(word for word in (*file.imported[first], rest) if word).split(".")
        for cut in range(len(words) - 1, 0, -1):
            module = ".".join(words[:cut])
            if module in self.files:
                return self.files[module], ".".join(words[cut:])
        return None


def _files_of(package: str) -> Iterator[File]:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        yield File(package, origin)
        return
    for path in sorted(origin.parent.rglob("*.py")):
        words = path.relative_to(origin.parent).with_suffix("").parts
        yield File(".".join([package, *(words[:-1] if words[-1] == "__init__" else words)]), path)


def _own_files(folder: Path, packages: set[str]) -> list[File]:
    """The user's files that matter; not those that an import would not find, because something
    installed has their name.
    """
    waiting = []
    for path in sorted(folder.glob("*.py")):
        if path.stem.isidentifier() and path.stem not in packages:
            with suppress(OSError):  # a link that leads nowhere, a folder of that name
                waiting.append(File(path.stem, path, own=True))
    known = set(packages)
    found = []
    while more := [file for file in waiting if file.roots & known]:
        found += more
        known |= {file.module for file in more}
        waiting = [file for file in waiting if file not in more]
    return [file for file in found if not _hidden(file)]


def _hidden(file: File) -> bool:
    """Whether something installed has the file's name; the working directory comes last."""
    spec = next(
        filter(None, (finder.find_spec(file.module, None) for finder in sys.meta_path)), None
    )
    return spec is not None and (
        spec.origin is None or Path(spec.origin).resolve() != file.path.resolve()
    )
