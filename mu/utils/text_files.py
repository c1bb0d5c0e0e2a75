"""Checked reading of text and YAML files, without torch."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from mu.utils.errors import InputError

MAX_DEPTH = 60
"""Deepest nesting of lists and mappings in a YAML file."""
MAX_ENTRIES = 1_000_000
"""Most entries of a YAML file, aliases written out."""
MAX_NAME = 120
"""Longest name of a folder that is made from a name in a file."""


class Loader(yaml.SafeLoader):
    """YAML loader with the numbers of YAML 1.2 (1e-3 is one) that refuses a key given twice.

    Digits after a leading zero are a text: the ids 01 and 1 are not the same.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Mapping of a node.

        Raises:
            ConstructorError: for a key that stands twice.
        """
        keys: set[str] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key in keys:
                message = f"the key {key!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
            if key is not None and key != "<<":
                keys.add(key)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """YAML dumper that quotes strings which the loader would read as numbers."""


Loader.yaml_implicit_resolvers = {
    letter: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":timestamp", ":int"))]
    for letter, resolvers in Loader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
for _yaml_class in (Loader, Dumper):
    _yaml_class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(
            r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
            r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+0123456789."),
    )


def file_fault(path: Path | str) -> str | None:
    """What is wrong with a path that should be a readable file, as the end of a sentence.

    Only the file's entry is looked at, so a pipe without a writer is not waited for.

    Args:
        path: of a file that somebody named.

    Returns:
        For example `is a folder`; None for a regular file.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError:
        return "is no path: it has a null byte"
    except OSError as error:
        reasons = {
            errno.ELOOP: "is a link to itself",
            errno.ENAMETOOLONG: "is too long for a path",
            errno.EACCES: "may not be read by you",
        }
        return reasons.get(error.errno or 0, "does not exist")
    if stat.S_ISDIR(mode):
        return "is a folder"
    if not stat.S_ISREG(mode):
        return "is a pipe or a device, not a file"
    return None if os.access(path, os.R_OK) else "may not be read by you"


def check_new_folder(path: Path | str, subject: str) -> None:
    """Check that a folder may be written, without writing it.

    Args:
        path: the folder, which may exist.
        subject: what it is, for the message.

    Raises:
        InputError: when a file stands there or above, or the folder may not be written.
    """
    for folder in (Path(path), *Path(path).parents):
        fault = file_fault(folder)
        if fault == "does not exist":
            continue
        if fault not in (None, "is a folder"):
            raise InputError(f"{subject} {shortened(path)} {fault}; give another.")
        if fault is None:
            raise InputError(
                f"{subject} {shortened(path)} cannot be written, because {shortened(folder)} is a "
                "file; give another."
            )
        if not os.access(folder, os.W_OK):
            raise InputError(
                f"{subject} {shortened(path)} may not be written by you; give another."
            )
        return


def shortened(text: object, length: int = 80) -> str:
    """A text of at most some characters, its middle left out.

    >>> shortened("a" * 100, 9)
    'aaa...aaa'
    """
    text = str(text)
    half = (length - 3) // 2
    return text if len(text) <= length else f"{text[:half]}...{text[-half:]}"


def read_text(path: Path | str, encoding: str = "utf-8") -> str:
    """Text of a regular file.

    Raises:
        InputError: when there is no such file, or it is not text in UTF-8.
    """
    fault = file_fault(path)
    if fault == "does not exist":
        raise InputError(f"there is no file {shortened(path, 200)}.")
    if fault is not None:
        raise InputError(f"{shortened(path, 200)} {fault}; name a file.")
    try:
        return Path(path).read_text(encoding=encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error


def parse_yaml(text: str, name: object, loader_class: type[Loader] = Loader) -> Any:
    """Value of a YAML text.

    Args:
        text: the text.
        name: its file, for messages.
        loader_class: which words are numbers and null.

    Raises:
        InputError: for invalid YAML, a key that stands twice, nesting too deep or aliases that
            multiply.
    """
    loader = None
    try:
        loader = loader_class(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, name)
        return loader.construct_document(node)
    except RecursionError:
        raise _too_deep(name) from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, AttributeError) as error:
        raise InputError(f"{name} is not valid YAML: {_yaml_fault(error)}.") from error
    finally:
        if loader is not None:
            loader.dispose()


def read_yaml(path: Path | str) -> Any:
    """Value of a YAML file; see `parse_yaml`."""
    return parse_yaml(read_text(path), path)


def _check_size(node: yaml.Node, name: object) -> None:
    """Refuse a document that grows too large or too deep when its aliases are written out."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in open_nodes:
            raise InputError(f"{name} has an alias inside its own anchor; write the value out.")
        if depth > MAX_DEPTH:
            raise _too_deep(name)
        open_nodes.add(id(node))
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        entries = [entry for child in children for entry in _listed(child)]
        sizes[id(node)] = 1 + sum(size(entry, depth + 1) for entry in entries)
        open_nodes.discard(id(node))
        return sizes[id(node)]

    if size(node, 0) > MAX_ENTRIES:
        raise InputError(
            f"{name} has more than {MAX_ENTRIES} entries when its aliases are written out; use "
            "fewer aliases."
        )


def _listed(child: Any) -> tuple[Any, ...]:
    return child if isinstance(child, tuple) else (child,)


def _too_deep(name: object) -> InputError:
    return InputError(f"{name} is nested more than {MAX_DEPTH} levels deep; make it flatter.")


def _yaml_fault(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    message = shortened(problem or " ".join(str(error).split()), 200)
    if mark is None:
        return message
    return f"line {mark.line + 1}, column {mark.column + 1}: {message}"


def check_folder_name(name: object, subject: str) -> str:
    """A name that becomes a folder, unchanged.

    Args:
        name: from a file or a command line.
        subject: what it names, for the message.

    Raises:
        InputError: for a name that is no plain folder name, or leads elsewhere.

    >>> check_folder_name("class 3", "the task")
    'class 3'
    """
    fault = None
    if not isinstance(name, str):
        fault = "is not text; write it in quotes"
    elif not name or name != name.strip() or name.startswith("."):
        fault = "is empty, or begins with a dot or a space; choose another"
    elif any(character in "/\\:" or not character.isprintable() for character in name):
        fault = "becomes a folder, so it may not hold / \\ : or control characters; choose another"
    elif len(name.encode()) > MAX_NAME:
        fault = f"is longer than {MAX_NAME} bytes; choose a shorter one"
    if fault is not None:
        raise InputError(f"{subject} {shortened(repr(name))} {fault}.")
    return str(name)
