"""Graph of language-model metrics that computes shared results once for each (model, set).

A node is a frozen dataclass with its dependencies in `inputs`; equal nodes are computed once.
Leaves run the model (`Scored`, `GeneratedText`, `GradientNorms`); other nodes compute from their
values. A `Graph` belongs to one backbone; an altered copy of the model (`graph.for_model(other)`)
is measured by the same nodes.

    graph = Graph(backbone, task.sets, task.encoder)
    graph.value(Probability("forget")).value
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from mu.data.encoding import Encoder
from mu.data.questions import QuestionSet
from mu.data.sequences import Pair
from mu.utils.errors import InputError, UndefinedError
from mu.utils.fingerprint import digest
from mu.utils.resumable import Ranks, map_chunks

T = TypeVar("T")
_BUDGET = {"cpu": 1024}
_LARGE_BUDGET = 8192
_FORMAT = 2
"""Format of the cached results; another number invalidates them."""


class Node(ABC, Generic[T]):
    """Base of graph nodes: a value that is computed once. A subclass is a frozen dataclass."""

    accepts_undefined: ClassVar[bool] = False
    """Whether `evaluate` gets the UndefinedError of an undefined input in place of its value."""

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        """Nodes that this node depends on, in the order of the arguments of `evaluate`."""
        return ()

    @abstractmethod
    def evaluate(self, graph: Graph, *inputs: Any) -> T:
        """Value of the node, from the values of `inputs`."""


@dataclass(frozen=True)
class Measurement:
    """Value of a metric on a model, with the values of the items.

    Attributes:
        value: the aggregate.
        index: `[N]` int64, stable indices of the items; None where there are none.
        items: `[N]` float64, the items' values.
        detail: settings and counts that are reported beside the value.
    """

    value: float
    index: Tensor | None = None
    items: Tensor | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def mean(cls, index: Tensor, items: Tensor) -> Measurement:
        """Mean over items, with the items.

        Raises:
            UndefinedError: there is no item, or the value of one is NaN.
        """
        undefined = int(items.isnan().sum())
        if undefined or not len(items):
            raise UndefinedError(
                f"{undefined} of {len(items)} items have no value, so their mean is undefined."
            )
        return cls(items.double().mean().item(), index, items.double())


class Metric(Node[Measurement]):
    """Base of metrics: nodes with one aggregate value and, mostly, a value for each item."""

    stem: ClassVar[str]
    """First part of the metric's name."""
    unnamed_fields: ClassVar[tuple[str, ...]] = ("log",)
    """Fields that do not enter the name, because they do not change what is measured."""

    @property
    def name(self) -> str:
        """Key of the metric in an oracle's log.

        The stem, the fields without a default, and the fields that differ from their default.
        """
        required = []
        changed = []
        for attribute in fields(self):  # type: ignore[arg-type]
            value = getattr(self, attribute.name)
            text = "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
            if attribute.name in self.unnamed_fields or value == attribute.default:
                continue
            (required if attribute.default is MISSING else changed).append(
                text if attribute.default is MISSING else f"{attribute.name}={text}"
            )
        return "/".join([self.stem, *required]) + (f" ({', '.join(changed)})" if changed else "")


class Graph:
    """Cache of node values for one model.

    Args:
        backbone: model with `token_logits(batch)` and
            `generate(ids, max_new_tokens, stop_strings)`.
        sets: question sets of the task, by name.
        encoder: encoder of questions and answers as tokens.
        folder: cache of leaf results on disk, under the hash of the model and of the exact tokens;
            None caches in memory only.
        ranks: processes that share the work.
        within: factory of the context of a forward pass (the trainer's precision).
        precision: name of the precision that `within` sets.
        tokens_per_batch: tokens of a forward pass, padding included, at least 1; 1,024 on a CPU and
            8,192 elsewhere when None.
        prompts_per_batch: prompts of a call to `generate`, at least 1.

    Raises:
        InputError: when a batch size is less than 1.
    """

    def __init__(
        self,
        backbone: Any,
        sets: Mapping[str, QuestionSet],
        encoder: Encoder,
        *,
        folder: Path | None = None,
        ranks: Ranks | None = None,
        within: Callable[[], AbstractContextManager[Any]] = nullcontext,
        precision: str = "",
        tokens_per_batch: int | None = None,
        prompts_per_batch: int = 32,
    ) -> None:
        if tokens_per_batch is None:
            tokens_per_batch = _BUDGET.get(next(backbone.parameters()).device.type, _LARGE_BUDGET)
        for name, size in (
            ("tokens_per_batch", tokens_per_batch),
            ("prompts_per_batch", prompts_per_batch),
        ):
            if size < 1:
                raise InputError(f"{name} is {size}; it must be at least 1.")
        self.backbone = backbone
        self.sets = sets
        self.encoder = encoder
        self.folder = folder
        self.ranks = ranks or Ranks()
        self.within = within
        self.precision = precision
        self.tokens_per_batch = tokens_per_batch
        self.prompts_per_batch = prompts_per_batch
        self._values: dict[Node[Any], Any] = {}
        self._undefined: dict[Node[Any], UndefinedError] = {}
        self._encoded: dict[Node[Any], Encoded] = {}

    def for_model(self, backbone: Any, folder: Path | None = None) -> Graph:
        """A graph of another model on the same sets; encoded sequences are shared."""
        other = Graph(
            backbone,
            self.sets,
            self.encoder,
            folder=folder,
            ranks=self.ranks,
            within=self.within,
            precision=self.precision,
            tokens_per_batch=self.tokens_per_batch,
            prompts_per_batch=self.prompts_per_batch,
        )
        other._encoded = self._encoded
        return other

    def value(self, node: Node[T]) -> T:
        """Value of a node; the node and its dependencies are computed once.

        Raises:
            UndefinedError: the node, or an input of it, has no value on this model.
        """
        if node in self._undefined:
            raise self._undefined[node]
        if node not in self._values:
            try:
                self._values[node] = node.evaluate(
                    self, *[self._input(node, dependency) for dependency in node.inputs]
                )
            except UndefinedError as reason:
                self._undefined[node] = reason
                raise
        return self._values[node]

    def _input(self, node: Node[Any], dependency: Node[Any]) -> Any:
        try:
            return self.value(dependency)
        except UndefinedError as reason:
            if not node.accepts_undefined:
                raise
            return reason

    def is_computed(self, node: Node[Any]) -> bool:
        """Whether the value of a node is in the cache."""
        return node in self._values

    def measurements(self) -> Iterator[tuple[Metric, Measurement]]:
        """Metrics that have been computed, with their values."""
        yield from (
            (node, value) for node, value in self._values.items() if isinstance(node, Metric)
        )

    def undefined(self) -> Iterator[tuple[Metric, str]]:
        """Metrics that have no value on this model, with the reasons."""
        yield from (
            (node, str(reason))
            for node, reason in self._undefined.items()
            if isinstance(node, Metric)
        )

    def tokens(self, node: Node[Any]) -> str:
        """Hash of the exact tokens that determine the value of a node."""
        return digest(sorted({encoded.tokens for encoded in self._leaves(node)}))

    def _leaves(self, node: Node[Any]) -> Iterator[Encoded]:
        if isinstance(node, Leaf):
            yield self.encoded(node)
        for dependency in node.inputs:
            yield from self._leaves(dependency)

    def questions(self, name: str) -> QuestionSet:
        """A question set of the task, by name.

        Raises:
            InputError: when the task has no such set.
            UndefinedError: when it is empty.
        """
        if name not in self.sets:
            raise InputError(
                f"the task has no set {name!r} to measure on; it has {', '.join(self.sets)}."
            )
        if not len(self.sets[name]):
            raise UndefinedError(f"the set {name} has no rows to measure on.")
        return self.sets[name]

    def column(self, name: str, field: str) -> Sequence[Any]:
        """One field of all rows of a question set.

        Raises:
            InputError: when some rows lack it.
            UndefinedError: when no row has it, so that what needs it cannot be measured.
        """
        questions = self.questions(name)
        if not any(row.get(field) for row in questions.rows):
            raise UndefinedError(f"no row of the set {name} has {field}.")
        return questions.column(field)

    @cached_property
    def model(self) -> str:
        """Identity of the model: hash of weights, class and other arguments."""
        from mu.utils.fingerprint import model_identity

        return model_identity(self.backbone, self.weights)

    @cached_property
    def weights(self) -> str:
        """Hash of the weights."""
        from mu.utils.weights import weights_hash

        return weights_hash(self.backbone)

    # ---- operations of leaves --------------------------------------------------------------------

    def encoded(self, leaf: Leaf[Any]) -> Encoded:
        """Sequences of a leaf, encoded once."""
        if leaf not in self._encoded:
            self._encoded[leaf] = leaf.encode(self)
        return self._encoded[leaf]

    def run(
        self,
        leaf: Leaf[Any],
        encoded: Encoded,
        settings: Mapping[str, Any],
        count: int,
        work: Callable[[int], Any],
        what: str,
    ) -> Any:
        """Results of the batches of a leaf, in eval mode, shared by ranks and cached on disk.

        Args:
            leaf: the node, whose class name enters the cache key.
            encoded: its sequences.
            settings: values that affect the results, such as batch sizes.
            count: number of batches.
            work: computes the results of one batch from its index.
            what: text of the progress bar.
        """
        key = (
            digest(
                [
                    _FORMAT,
                    type(leaf).__name__,
                    self.model,
                    self.precision,
                    encoded.tokens,
                    dict(settings),
                ]
            )
            if self.folder
            else ""
        )
        with self._evaluating():
            return map_chunks(count, work, key=key, folder=self.folder, ranks=self.ranks, what=what)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        from mu.utils.modules import eval_mode

        with eval_mode(self.backbone), self.within():
            yield


@dataclass(frozen=True)
class Encoded:
    """Token sequences of a leaf: pairs of ids and labels, or prompts without labels.

    Attributes:
        pairs: P pairs of ids and labels; a prompt has no labels.
        row: `[P]` int64, position of each sequence's row in its set.
        index: `[P]` int64, stable index of the row.
        tokens: hash of the sequences.
    """

    pairs: list[Pair]
    row: Tensor
    index: Tensor
    tokens: str


class Leaf(Node[T]):
    """Base of nodes that run the model."""

    set: str

    @abstractmethod
    def encode(self, graph: Graph) -> Encoded:
        """Token sequences that the leaf runs on."""


class OracleLog(ABC):
    """Base of sources of the oracle's values."""

    @abstractmethod
    def measure(self, node: Metric, graph: Graph) -> Measurement:
        """Value of a metric on the oracle, its items in the order of the graph's set.

        Args:
            node: any metric.
            graph: graph of the model that is compared with the oracle.

        Raises:
            InputError: when the oracle's value is missing, or was measured on other items.
        """

    @abstractmethod
    def label(self, graph: Graph) -> str:
        """Name of the oracle, for the detail of a result."""
