"""Metrics of language models as a graph: what they share is computed once for each (model, set).

A node is a frozen dataclass that names what it depends on (`inputs`), so equal nodes are one.
Leaves run the model (`Scored`, `GeneratedText`, `GradientNorms`); all else is arithmetic on their
values. A `Graph` is a function of a backbone, and an altered copy of the model (`graph.of(other)`)
is measured by the very same nodes.

    graph = Graph(backbone, task.sets, task.encoder)
    graph.value(Probability("forget")).value
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from mu.data.encoding import Encoder, Pair
from mu.data.questions import QuestionSet
from mu.utils.errors import InputError
from mu.utils.fingerprint import digest
from mu.utils.resumable import Ranks, map_chunks

T = TypeVar("T")
_BUDGET = {"cpu": 1024}
_LARGE_BUDGET = 8192
_FORMAT = 1
"""Of what is kept on disk; another number makes everything anew."""


class Node(ABC, Generic[T]):
    """Something that is computed once. A subclass is a frozen dataclass."""

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        """What it is computed from, in the order of `evaluate`'s arguments."""
        return ()

    @abstractmethod
    def evaluate(self, graph: Graph, *inputs: Any) -> T:
        """Its value, from the values of `inputs`."""


@dataclass(frozen=True)
class Measurement:
    """What a metric says of a model.

    Attributes:
        value: the aggregate.
        index: `[N]` int64, stable indices of the items; None where there are none.
        items: `[N]` float64, the items' values.
        detail: what must stand beside the number.
    """

    value: float
    index: Tensor | None = None
    items: Tensor | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def mean(cls, index: Tensor, items: Tensor) -> Measurement:
        """The mean of items."""
        return cls(items.double().mean().item(), index, items.double())


class Metric(Node[Measurement]):
    """A node with a number, and mostly with a value for each item."""

    stem: ClassVar[str]
    """The beginning of its name."""
    silent: ClassVar[tuple[str, ...]] = ("log",)
    """Fields that say nothing of what is measured."""

    @property
    def name(self) -> str:
        """By which it is known in a log: the stem, the fields without a default, and those that
        differ from their default.
        """
        required = []
        changed = []
        for attribute in fields(self):  # type: ignore[arg-type]
            value = getattr(self, attribute.name)
            text = "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
            if attribute.name in self.silent or value == attribute.default:
                continue
            (required if attribute.default is MISSING else changed).append(
                text if attribute.default is MISSING else f"{attribute.name}={text}"
            )
        return "/".join([self.stem, *required]) + (f" ({', '.join(changed)})" if changed else "")


class Graph:
    """Values of nodes for one model.

    Args:
        backbone: has `token_logits(batch)` and `generate(ids, max_new_tokens, stop)`.
        sets: the task's sets of questions, by name.
        encoder: makes sequences of tokens.
        folder: where results of leaves are kept, under the hash of the model and of the exact
            tokens; None keeps nothing.
        ranks: who works.
        within: makes the context of a forward pass (the trainer's precision).
        precision: what `within` does, in a word.
        tokens_per_batch: of a forward pass, with padding; 1,024 on a CPU and 8,192 elsewhere when
            None.
        prompts_per_batch: of a call to `generate`.
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
        self._known: dict[Node[Any], Any] = {}
        self._encoded: dict[Node[Any], Encoded] = {}

    def of(self, backbone: Any, folder: Path | None = None) -> Graph:
        """The same measurements of another model, or of an altered copy; the sequences of tokens
        are shared.
        """
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
        """The node's value; everything that it depends on is computed once."""
        if node not in self._known:
            self._known[node] = node.evaluate(
                self, *[self.value(dependency) for dependency in node.inputs]
            )
        return self._known[node]

    def knows(self, node: Node[Any]) -> bool:
        """Whether the node was computed already."""
        return node in self._known

    def measured(self) -> Iterator[tuple[Metric, Measurement]]:
        """Every metric that was computed so far."""
        yield from (
            (node, value) for node, value in self._known.items() if isinstance(node, Metric)
        )

    def tokens(self, node: Node[Any]) -> str:
        """Hash of the exact tokens that a node's value was computed from."""
        return digest(sorted({encoded.tokens for encoded in self._leaves(node)}))

    def _leaves(self, node: Node[Any]) -> Iterator[Encoded]:
        if isinstance(node, Leaf):
            yield self.encoded(node)
        for dependency in node.inputs:
            yield from self._leaves(dependency)

    def questions(self, name: str) -> QuestionSet:
        """A set of the task.

        Raises:
            InputError: when the task has no such set, or it is empty.
        """
        if name not in self.sets:
            raise InputError(
                f"the task has no set {name!r} to measure on; it has {', '.join(self.sets)}."
            )
        if not len(self.sets[name]):
            raise InputError(f"the set {name} has no rows to measure on.")
        return self.sets[name]

    @cached_property
    def model(self) -> str:
        """Hash of the weights, the class and the arguments that are not weights."""
        from mu.utils.fingerprint import model_identity

        return model_identity(self.backbone, self.weights)

    @cached_property
    def weights(self) -> str:
        """Hash of the weights."""
        from mu.utils.weights import weights_hash

        return weights_hash(self.backbone)

    # ---- for leaves ------------------------------------------------------------------------------

    def encoded(self, leaf: Leaf[Any]) -> Encoded:
        """A leaf's sequences, encoded once."""
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
        """The results of a leaf's batches, by ranks, from disk where they are there, with the model
        in eval mode.
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
    """Sequences of a leaf: `pairs` with labels, or prompts without; `row` is each one's position in
    its set.

    Attributes:
        pairs: ids and labels; a prompt has no labels.
        row: `[P]` int64.
        index: `[P]` int64, stable index of the row.
        tokens: hash of all of it.
    """

    pairs: list[Pair]
    row: Tensor
    index: Tensor
    tokens: str


class Leaf(Node[T]):
    """A node that runs the model."""

    set: str

    @abstractmethod
    def encode(self, graph: Graph) -> Encoded:
        """Its sequences of tokens."""


class OracleLog(ABC):
    """Answers for the oracle."""

    @abstractmethod
    def measured(self, node: Metric, graph: Graph) -> Measurement:
        """The oracle's value of a node, its items in the order of the graph's set.

        Args:
            node: any metric.
            graph: of the model that is compared.

        Raises:
            InputError: when the oracle was not asked for it, or about other items.
        """

    @abstractmethod
    def label(self, graph: Graph) -> str:
        """Which oracle this is, for a result's detail."""
