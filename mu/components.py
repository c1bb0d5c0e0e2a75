"""Building components (methods, tasks, callbacks) from plain configuration, with jsonargparse's type checks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from mu.errors import InputError


class Components:
    """Parsers for the three kinds of components, built once and used for every run of a study."""

    @cached_property
    def _parsers(self) -> dict[str, Any]:
        from jsonargparse import ArgumentParser
        from lightning.pytorch import Callback

        from mu.data import UnlearningDataModule
        from mu.module import UnlearningModule

        kinds = {"model": UnlearningModule, "data": UnlearningDataModule, "callbacks": list[Callback]}
        parsers = {}
        for name, kind in kinds.items():
            parser = ArgumentParser(exit_on_error=False)
            parser.add_argument(f"--{name}", type=kind)
            parsers[name] = parser
        return parsers

    def resolve(self, kind: str, spec: Any) -> Any:
        """Check a specification and fill in every default: plain data, the same for every way of writing it.

        Args:
            kind: `model`, `data` or `callbacks`.
            spec: `{class_path: ..., init_args: {...}}`, or a list of those.
        """
        import yaml

        parser = self._parsers[kind]
        return yaml.safe_load(parser.dump(self._parse(kind, spec), skip_none=False))[kind]

    def make(self, kind: str, spec: Any) -> Any:
        """The object that a specification describes."""
        parsed = self._parse(kind, spec)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            instantiate = getattr(self._parsers[kind], "instantiate", None) or self._parsers[kind].instantiate_classes
            return instantiate(parsed)[kind]

    def _parse(self, kind: str, spec: Any) -> Any:
        from argparse import ArgumentError

        from jsonargparse import ArgumentError as ParserError

        try:
            return self._parsers[kind].parse_object({kind: spec})
        except (ArgumentError, ParserError, TypeError, ValueError) as error:
            where = spec.get("class_path", kind) if isinstance(spec, Mapping) else kind
            raise InputError(f"{where} cannot be built: {' '.join(str(error).split())}") from error


def merge(*layers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Deep merge of plain configuration: later layers win, dicts are merged, lists are replaced, `key+` appends to a list.

    A later `class_path` that differs drops the earlier `init_args`, which belong to another class.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in (layer or {}).items():
            if key.endswith("+"):
                base = key[:-1]
                merged[base] = [*_listed(merged.get(base)), *_listed(value)]
            elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
                old = merged[key]
                other = "class_path" in value and "class_path" in old and value["class_path"] != old["class_path"]
                merged[key] = merge(None if other else old, value)
            else:
                merged[key] = merge(value) if isinstance(value, Mapping) else value
    return merged


def _listed(value: Any) -> list[Any]:
    """A list as it is; nothing as no entry, anything else as one."""
    return value if isinstance(value, list) else [] if value is None else [value]
