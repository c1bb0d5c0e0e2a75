"""Evaluation of a method's objective, with a plain sentence for what its author forgot."""

from __future__ import annotations

import linecache
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mu.backbones.base import Backbone
from mu.data.batch import Batch
from mu.utils.errors import InputError


def evaluate_objective(
    method: Any, forget: Batch | None, retain: Batch | None
) -> dict[str, Tensor]:
    """Terms of a method's objective for the parts of a batch.

    Args:
        method: an `UnlearningModule` in its training step.
        forget: the forget part, prepared; None where the batch has none.
        retain: the retain part, likewise.

    Raises:
        InputError: the terms are no dict of scalar tensors, or the objective failed by a part that
            the plan does not give, an entry that the batch does not have, a pair that was not
            reduced, or a reference that was not declared.
    """
    parts = {"forget": forget, "retain": retain}
    try:
        terms = method.objective(forget, retain)
    except (AttributeError, KeyError, TypeError) as error:
        fault = objective_fault(method, error, parts)
        if fault is None:
            raise
        raise InputError(f"{type(method).__name__}.objective {fault}") from error
    check_terms(type(method).__name__, terms)
    return terms


def objective_fault(method: Any, error: Exception, parts: Mapping[str, Batch | None]) -> str | None:
    """What an objective did wrong, and the cure, by the error that it raised.

    Args:
        method: the method.
        error: what its `objective` raised.
        parts: the parts of the batch, None for absent ones.

    Returns:
        The sentence after the objective's name; None for an error of another kind.
    """
    message = str(error)
    attribute = re.search(r"'NoneType' object has no attribute '(\w+)'", message)
    if attribute and hasattr(Backbone, attribute[1]) and method.reference is None:
        return (
            "uses self.reference, which is None; declare needs_reference = True in the class for "
            "a frozen copy of the original."
        )
    absent = [name for name, part in parts.items() if part is None]
    if "'NoneType'" in message and absent:
        return (
            f"reads the {absent[0]} part, which this batch of its plan does not have; declare plan "
            "= Paired() in the class for batches with both parts, or take None into account."
        )
    if isinstance(error, TypeError | AttributeError) and re.search(
        r"\btuple\b|multiply sequence", message
    ):
        return (
            "computes with a pair (sum [B], weight [B]), as the backbone's losses are; make it a "
            "scalar first by self.reduce(pair, part)."
        )
    if isinstance(error, KeyError):
        read = _read_mapping(error)
        for name, part in parts.items():
            if part is not None and read is not None and read.get("index") is part.get("index"):
                return (
                    f"reads {error.args[0]!r}, which the {name} part does not have; it has "
                    f"{', '.join(sorted(part))}."
                )
    return None


def _read_mapping(error: KeyError) -> Mapping[str, Any] | None:
    """The variable `name` whose `name[key]` raised an error; None for another expression."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return None
    code = trace.tb_frame.f_code
    line, _, start, end = list(code.co_positions())[trace.tb_lasti // 2]
    text = linecache.getline(code.co_filename, line or 0).encode()[start:end].decode()
    variable = re.match(r"(\w+)\[", text)
    value = trace.tb_frame.f_locals.get(variable[1]) if variable else None
    return value if isinstance(value, Mapping) else None


def check_terms(name: str, terms: Any) -> None:
    """Refuse what is not a dict of scalar tensors as the terms of an objective.

    Args:
        name: class of the method.
        terms: what its `objective` returned.

    Raises:
        InputError: names the method, and what it returned.

    Example:
        >>> import torch
        >>> check_terms("NegGrad", {"forget": torch.zeros((), requires_grad=True)})
    """
    dict_form = 'a dict of scalar tensors, as {"forget": self.reduce(pair, forget)}'
    if not isinstance(terms, Mapping) or not terms:
        returned = (
            "an empty dict"
            if isinstance(terms, Mapping)
            else "nothing"
            if terms is None
            else f"a {type(terms).__name__}"
        )
        raise InputError(f"{name}.objective returned {returned}; it returns {dict_form}.")
    for term, value in terms.items():
        fault = ""
        if isinstance(value, tuple):
            fault = "is a tuple, as the backbone's losses are, (sum [B], weight [B])"
        elif not isinstance(value, Tensor):
            fault = f"is a {type(value).__name__}"
        elif value.dim():
            fault = f"has shape {list(value.shape)}"
        if fault:
            raise InputError(
                f"the term {term!r} of {name}.objective {fault}; it returns {dict_form}."
            )
    if not any(value.requires_grad for value in terms.values()):
        raise InputError(
            f"no term of {name}.objective depends on a weight that is trained; compute its losses "
            "from the prediction of self.backbone, without no_grad or detach."
        )
