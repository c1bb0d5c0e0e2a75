"""Reconstruction of objects from plain data (class path and arguments), without a pickle."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import nn

from mu.utils.class_source import imported_class
from mu.utils.errors import InputError

_ARGUMENTS = re.compile(r"(unexpected keyword|missing \d+ required|multiple values for) ")
LIVE = "<live object>"
"""Marker of an argument without a plain form (a network, a closure)."""


class Reconstructible:
    """Base class that records its constructor arguments; `to_spec` turns them into plain data."""

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        # past nn.Module.__setattr__, which would register a network given as an argument a second
        # time
        object.__setattr__(self, "_arguments", (args, kwargs))
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Deep copy that shares the recorded arguments, which may contain weights."""
        from copy import deepcopy

        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        for name, value in self.__dict__.items():
            object.__setattr__(twin, name, value if name == "_arguments" else deepcopy(value, memo))
        return twin


BUILDABLE = (Reconstructible, torch.optim.Optimizer)
"""Bases of the classes that may be instantiated from a file."""


def init_args_of(thing: Reconstructible) -> dict[str, Any]:
    """Constructor arguments of an object by name."""
    args, kwargs = thing._arguments
    signature = inspect.signature(type(thing).__init__)
    bound = signature.bind(thing, *args, **kwargs).arguments
    extra = next(
        (name for name, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD), None
    )
    named = {name: value for name, value in list(bound.items())[1:] if name != extra}
    return {**named, **bound.get(extra, {})} if extra else named


def class_path(cls: type) -> str:
    """Dotted path of a class, by the shortest public package that exports it."""
    module = cls.__module__
    parts = module.split(".")
    for cut in range(1, len(parts)):
        package = ".".join(parts[:cut])
        if getattr(import_module(package), cls.__name__, None) is cls:
            return f"{package}.{cls.__name__}"
    return f"{module}.{cls.__qualname__}"


def to_spec(value: Any) -> Any:
    """Specification of an object as plain data, for `from_spec`; `LIVE` where there is none.

    Plain data are numbers, strings, lists and dicts.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    # exactly these: a file read with `weights_only=True` holds no subclass of them
    for plain_type in (
        int,
        float,
        str,
    ):
        if isinstance(value, plain_type):
            return plain_type(value)
    if isinstance(value, Reconstructible):
        return {
            "class_path": class_path(type(value)),
            "init_args": {k: to_spec(v) for k, v in init_args_of(value).items()},
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: to_spec(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init
        }
        return {"class_path": class_path(type(value)), "init_args": fields}
    if isinstance(value, Mapping):
        return {str(k): to_spec(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_spec(v) for v in value]
    if callable(value) and not isinstance(value, nn.Module):
        return _factory_spec(value)
    if hasattr(value, "__fspath__"):
        return str(value)
    return LIVE


def _factory_spec(factory: Any) -> Any:
    """Specification of a factory of optimizers or schedulers, from the object that it makes.

    An optimizer can be built again from it; a scheduler can only be compared.
    """
    parameters = [nn.Parameter(torch.zeros(1))]
    product = _made(factory, parameters)
    if isinstance(product, torch.optim.Optimizer):
        accepted = inspect.signature(type(product).__init__).parameters
        # torch fills in defaults it does not take back (`foreach: None` and the like are taken;
        # derived ones are not)
        settings = {
            k: to_spec(v)
            for k, v in product.defaults.items()
            if k in accepted and not isinstance(v, torch.Tensor)
        }
        return {"class_path": class_path(type(product)), "init_args": settings, "factory": True}
    product = _made(factory, torch.optim.SGD(parameters, lr=1.0))
    if isinstance(product, torch.optim.lr_scheduler.LRScheduler):
        # its arguments are not all in its state
        return {
            LIVE: class_path(type(product)),
            "state": to_spec(product.state_dict()),
        }
    return LIVE


def _made(factory: Any, argument: Any) -> Any:
    try:
        return factory(argument)
    except Exception:  # a factory of something else, which may raise any error
        return None


def is_live(spec: Any) -> bool:
    """Whether a specification marks a live object, which cannot be built from it."""
    return (
        spec == LIVE
        or (isinstance(spec, Mapping) and LIVE in spec)
        or (isinstance(spec, list) and any(map(is_live, spec)))
    )


def with_defaults(spec: Any) -> Any:
    """Specification with every argument that has a default, and each class by its public path.

    Two specifications of equal objects are equal then, however they were written.
    """
    if isinstance(spec, list):
        return [with_defaults(item) for item in spec]
    if not isinstance(spec, Mapping):
        return spec
    if not isinstance(spec.get("class_path"), str):
        return {key: with_defaults(value) for key, value in spec.items()}
    arguments = {key: with_defaults(value) for key, value in (spec.get("init_args") or {}).items()}
    try:
        cls = find_class(spec["class_path"], BUILDABLE)
        parameters = inspect.signature(cls.__init__).parameters.values()
    except (InputError, TypeError, ValueError):  # a class that is gone, or without a signature
        return {"class_path": spec["class_path"], "init_args": arguments}
    defaults = {
        parameter.name: with_defaults(to_spec(parameter.default))
        for parameter in parameters
        if parameter.default is not parameter.empty
    }
    return {"class_path": class_path(cls), "init_args": {**defaults, **arguments}}


def from_spec(spec: Any, allow: Iterable[type] = ()) -> Any:
    """Object built from the plain data of `to_spec`.

    Only subclasses of `Reconstructible`, dataclasses of `mu`, optimizers of torch, and the classes
    in `allow` are instantiated, because a specification may come from an untrusted file.

    Raises:
        InputError: for a class that may not be instantiated, or an argument that had no plain form.
    """
    allow = tuple(allow)
    if isinstance(spec, list):
        return [from_spec(item, allow) for item in spec]
    if not isinstance(spec, Mapping):
        return spec
    if "class_path" not in spec:
        return {key: from_spec(value, allow) for key, value in spec.items()}
    cls = find_class(str(spec["class_path"]), (*BUILDABLE, *allow))
    if not may_build(cls, tuple(allow)):
        raise InputError(
            f"{spec['class_path']} is not a class that mu may instantiate from a file; pass "
            f"allow=[{cls.__name__}] if you trust it."
        )
    init_args = spec.get("init_args") or {}
    live = [name for name, value in init_args.items() if is_live(value)]
    if live:
        raise InputError(
            f"{spec['class_path']} was built from live objects ({', '.join(live)}), which no file "
            "can hold; give them to mu.load by name."
        )
    arguments = {name: from_spec(value, allow) for name, value in init_args.items()}
    if spec.get("factory"):
        return partial(cls, **arguments)
    positional, named = _arranged(cls, arguments)
    try:
        return cls(*positional, **named)
    except TypeError as error:
        if not _ARGUMENTS.search(str(error)):
            raise
        raise InputError(
            f"{spec['class_path']} cannot be built from the file: {error}; it was written by "
            "another version."
        ) from error


def _arranged(cls: type, arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named arguments of a constructor, with tuples for fields of tuples."""
    if dataclasses.is_dataclass(cls):  # a list would make a frozen value unhashable
        tuples = {
            field.name for field in dataclasses.fields(cls) if str(field.type).startswith("tuple")
        }
        arguments = {
            name: tuple(value) if name in tuples and value is not None else value
            for name, value in arguments.items()
        }
    parameter_kinds = {
        name: parameter.kind for name, parameter in inspect.signature(cls).parameters.items()
    }
    variable = next(
        (
            name
            for name, parameter_kind in parameter_kinds.items()
            if parameter_kind is inspect.Parameter.VAR_POSITIONAL
        ),
        None,
    )
    if variable not in arguments:
        return [], arguments
    before = [
        name
        for name in list(parameter_kinds)[: list(parameter_kinds).index(variable)]
        if name in arguments
    ]
    positional = [arguments[name] for name in before] + list(arguments[variable])
    return positional, {
        name: value for name, value in arguments.items() if name not in (*before, variable)
    }


def find_class(path: str, bases: tuple[type, ...] = ()) -> type:
    """Class at a dotted path.

    Args:
        path: its path.
        bases: classes of which it must derive from one, before its module is imported; any class
            where empty.

    Raises:
        InputError: when there is none.
    """
    return imported_class(path, bases)


def may_build(cls: type, allow: tuple[type, ...]) -> bool:
    """Whether a class may be instantiated from a specification in a file."""
    if not isinstance(cls, type):
        return False
    if issubclass(cls, BUILDABLE) or cls in allow:
        return True
    return dataclasses.is_dataclass(cls) and cls.__module__.split(".")[0] == "mu"
