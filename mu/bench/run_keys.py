"""Reuse keys: of a run what can change its weights, of a measurement what can change its number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from mu.config.components import Components, merge
from mu.utils.fingerprint import digest, hash_user_sources, source_hash
from mu.utils.spec import find_class
from mu.utils.version import __version__

MEASURING_DATA = ("evaluated", "eval_batch_size")
"""Arguments of a task that change what is measured, and no weights."""

LOADING_DATA = ("workers", "curves")
"""Arguments of a task that change neither weights nor measurements."""

MEASURING_TRAINER = ("limit_test_batches",)
"""Arguments of the Trainer that change what is measured, and no weights."""

DISPLAY_TRAINER = (
    "default_root_dir",
    "enable_model_summary",
    "enable_progress_bar",
    "limit_predict_batches",
    "log_every_n_steps",
    "logger",
    "num_sanity_val_steps",
    "profiler",
)
"""Arguments of the Trainer that change neither weights nor measurements."""

_ORACLE = {"init_args": {"oracle": "RUN"}}
"""Stand-in for the oracle's folder, whose place is no part of a key."""


def without(arguments: Mapping[str, Any], *groups: Sequence[str]) -> dict[str, Any]:
    """Arguments without those of some groups.

    Example:
        >>> without({"batch_size": 8, "workers": 2}, LOADING_DATA)
        {'batch_size': 8}
    """
    left_out = {name for group in groups for name in group}
    return {name: value for name, value in arguments.items() if name not in left_out}


def training_data(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Specification of a task without the arguments that change no weights."""
    arguments = without(spec.get("init_args") or {}, MEASURING_DATA, LOADING_DATA)
    return {**spec, "init_args": arguments}


def without_numbers(spec: Any) -> Any:
    """Plain data with the name of its type in place of each number.

    Example:
        >>> without_numbers({"lr": 0.1, "steps": [1, 2], "nesterov": True})
        {'lr': 'float', 'steps': ['int', 'int'], 'nesterov': True}
    """
    if isinstance(spec, Mapping):
        return {key: without_numbers(value) for key, value in spec.items()}
    if isinstance(spec, list):
        return [without_numbers(value) for value in spec]
    return type(spec).__name__ if type(spec) in (int, float) else spec


def with_numbers(resolved: Any, spec: Any) -> Any:
    """A resolved specification with the numbers of another one, of the same form.

    Args:
        resolved: with all defaults; a number keeps its type (an `int` that was read as a `float`).
        spec: of the same form as the one that was resolved.

    Raises:
        LookupError: when a number of `spec` has no place in `resolved`, which has another form.

    Example:
        >>> with_numbers({"lr": 0.5, "momentum": 0.0, "class_path": "torch.optim.SGD"}, {"lr": 1})
        {'lr': 1.0, 'momentum': 0.0, 'class_path': 'torch.optim.SGD'}
    """
    if type(spec) in (int, float):
        if type(resolved) not in (int, float) or (type(spec) is float and type(resolved) is int):
            raise LookupError(f"there is no number for {spec}")
        return type(resolved)(spec)
    if isinstance(spec, Mapping):
        if not isinstance(resolved, Mapping):
            return _same(resolved, spec)
        changed = {key: with_numbers(resolved.get(key), value) for key, value in spec.items()}
        return {**resolved, **{key: changed[key] for key in changed if key in resolved}}
    if isinstance(spec, list):
        if not isinstance(resolved, list) or len(resolved) != len(spec):
            return _same(resolved, spec)
        return [with_numbers(*pair) for pair in zip(resolved, spec, strict=True)]
    return resolved


def _same(resolved: Any, spec: Any) -> Any:
    """The resolved value, where the specification holds no number that could change it."""
    if without_numbers(spec) != spec:
        raise LookupError(f"there is no place for the numbers of {spec}")
    return resolved


def run_key(
    model: Mapping[str, Any],
    data: Any,
    trainer: Mapping[str, Any],
    identity: Mapping[str, Any],
) -> str:
    """Hash of everything that a run's weights depend on.

    Args:
        model: specification of the module with all defaults, without paths of weights.
        data: specification or recipe of the task.
        trainer: arguments of the Trainer.
        identity: seeds, and hashes of what the run starts from (split, original, weights).
    """
    user_sources = hash_user_sources(model, data)
    return digest(
        {
            **identity,
            "data": data,
            "model": model,
            "trainer": without(trainer, MEASURING_TRAINER, DISPLAY_TRAINER),
            "mu": __version__,
            "sources": _source_hash(str(model["class_path"])),
            **({"own": user_sources} if user_sources else {}),
        }
    )


@cache
def _source_hash(class_path: str) -> str:
    return source_hash(find_class(class_path))


@dataclass(frozen=True)
class SuiteIdentity:
    """What a suite's numbers depend on beside the run.

    Attributes:
        hash: of its class, all its arguments, and its sources.
        provides: names of its metrics, or prefixes that end in a slash.
        compares: metrics of other suites that it compares with the oracle's.
        takes_oracle: whether it has an argument `oracle`.
    """

    hash: str
    provides: tuple[str, ...]
    compares: tuple[str, ...]
    takes_oracle: bool

    def defines(self, metric: str) -> bool:
        """Whether the suite measures a metric."""
        return any(
            metric == name or (name.endswith("/") and metric.startswith(name))
            for name in self.provides
        )


def suite_identity(spec: Mapping[str, Any], oracle: bool, components: Components) -> SuiteIdentity:
    """Identity of a suite; it is built once for this.

    Args:
        spec: the suite's specification, without the oracle's folder.
        oracle: whether the suite takes the oracle.
        components: parsers.
    """
    spec = merge(_ORACLE, spec) if oracle else spec
    resolved = components.resolve("callbacks", [spec])
    suite = components.make("callbacks", [spec])[0]
    user_sources = hash_user_sources(resolved)
    identity = {"suite": resolved, "mu": __version__, "sources": source_hash(type(suite))}
    return SuiteIdentity(
        digest({**identity, **({"own": user_sources} if user_sources else {})}),
        tuple(getattr(suite, "definitions", ())),
        tuple(getattr(suite, "compared", ())),
        oracle,
    )


def measurement_keys(
    suites: Sequence[SuiteIdentity],
    data: Mapping[str, Any],
    trainer: Mapping[str, Any],
    oracle: str,
) -> list[str]:
    """Keys of the measurements of one run, which are unique inside its folder.

    Args:
        suites: what is measured.
        data: specification of the task.
        trainer: arguments of the Trainer.
        oracle: key of the oracle's run; empty without one.

    Returns:
        One key a suite. The key of a suite that compares metrics holds the keys of the suites that
        measure them.
    """
    arguments = data.get("init_args") or {}
    common = {
        "data": {name: arguments.get(name) for name in MEASURING_DATA},
        "trainer": {name: trainer.get(name) for name in MEASURING_TRAINER},
    }
    keys = [
        digest({"suite": suite.hash, **common, "oracle": oracle if suite.takes_oracle else ""})
        for suite in suites
    ]
    return [
        digest([key, *(keys[index] for index in providers(suite, suites))])
        if suite.compares
        else key
        for suite, key in zip(suites, keys, strict=True)
    ]


def providers(suite: SuiteIdentity, suites: Sequence[SuiteIdentity]) -> list[int]:
    """Positions of the suites that measure what a suite compares.

    A suite that defines no metric may measure any that no other one defines.

    Args:
        suite: a suite.
        suites: the suites of the run.
    """
    positions: set[int] = set()
    for metric in suite.compares:
        candidates = [index for index, other in enumerate(suites) if other is not suite]
        defining = [index for index in candidates if suites[index].defines(metric)]
        positions.update(defining or [index for index in candidates if not suites[index].provides])
    return sorted(positions)
