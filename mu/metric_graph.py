"""Metrics of language models as a graph: what they share is computed once for each (model, set).

A node is a frozen dataclass that names what it depends on (`inputs`), so equal nodes are one. Leaves run the model (`Scored`,
`Generated`, `GradientNorms`); all else is arithmetic on their values. A `Graph` is a function of a backbone, and an altered copy of the
model (`graph.of(other)`) is measured by the very same nodes.

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
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor

from mu.encoding import IGNORED, Encoder, Pair, collate
from mu.errors import InputError
from mu.identity import digest
from mu.questions import QuestionSet
from mu.resumable import Ranks, pieces
from mu.text_scores import Scores, Texts, assembled, batches, continued, counted, gradient_scores, token_scores, tokens_hash, unpacked

T = TypeVar("T")
Answer = Literal["answer", "paraphrased_answer", "perturbed_answer"]
Question = Literal["question", "paraphrased_question"]
_BUDGET, _LARGE_BUDGET = {"cpu": 1024}, 8192
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
        """By which it is known in a log: the stem, the fields without a default, and those that differ from their default."""
        told, other = [], []
        for one in fields(self):  # type: ignore[arg-type]
            value = getattr(self, one.name)
            said = "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
            if one.name in self.silent or value == one.default:
                continue
            (told if one.default is MISSING else other).append(said if one.default is MISSING else f"{one.name}={said}")
        return "/".join([self.stem, *told]) + (f" ({', '.join(other)})" if other else "")


class Graph:
    """Values of nodes for one model.

    Args:
        backbone: has `token_logits(batch)` and `generate(ids, max_new_tokens, stop)`.
        sets: the task's sets of questions, by name.
        encoder: makes sequences of tokens.
        folder: where results of leaves are kept, under the hash of the model and of the exact tokens; None keeps nothing.
        ranks: who works.
        within: makes the context of a forward pass (the trainer's precision).
        precision: what `within` does, in a word.
        tokens_per_batch: of a forward pass, with padding; 1,024 on a CPU and 8,192 elsewhere when None.
        prompts_per_batch: of a call to `generate`.
    """

    def __init__(
        self, backbone: Any, sets: Mapping[str, QuestionSet], encoder: Encoder, *, folder: Path | None = None, ranks: Ranks | None = None,
        within: Callable[[], AbstractContextManager[Any]] = nullcontext, precision: str = "",
        tokens_per_batch: int | None = None, prompts_per_batch: int = 32,
    ) -> None:
        if tokens_per_batch is None:
            tokens_per_batch = _BUDGET.get(next(backbone.parameters()).device.type, _LARGE_BUDGET)
        for name, size in (("tokens_per_batch", tokens_per_batch), ("prompts_per_batch", prompts_per_batch)):
            if size < 1:
                raise InputError(f"{name} is {size}; it must be at least 1.")
        self.backbone, self.sets, self.encoder, self.folder = backbone, sets, encoder, folder
        self.ranks, self.within, self.precision = ranks or Ranks(), within, precision
        self.tokens_per_batch, self.prompts_per_batch = tokens_per_batch, prompts_per_batch
        self._known: dict[Node[Any], Any] = {}
        self._encoded: dict[Node[Any], Encoded] = {}

    def of(self, backbone: Any, folder: Path | None = None) -> Graph:
        """The same measurements of another model, or of an altered copy; the sequences of tokens are shared."""
        other = Graph(backbone, self.sets, self.encoder, folder=folder, ranks=self.ranks, within=self.within, precision=self.precision,
                      tokens_per_batch=self.tokens_per_batch, prompts_per_batch=self.prompts_per_batch)
        other._encoded = self._encoded
        return other

    def value(self, node: Node[T]) -> T:
        """The node's value; everything that it depends on is computed once."""
        if node not in self._known:
            self._known[node] = node.evaluate(self, *[self.value(one) for one in node.inputs])
        return self._known[node]

    def knows(self, node: Node[Any]) -> bool:
        """Whether the node was computed already."""
        return node in self._known

    def measured(self) -> Iterator[tuple[Metric, Measurement]]:
        """Every metric that was computed so far."""
        yield from ((node, value) for node, value in self._known.items() if isinstance(node, Metric))

    def tokens(self, node: Node[Any]) -> str:
        """Hash of the exact tokens that a node's value was computed from."""
        return digest(sorted({found.tokens for found in self._leaves(node)}))

    def _leaves(self, node: Node[Any]) -> Iterator[Encoded]:
        if isinstance(node, Leaf):
            yield self.encoded(node)
        for one in node.inputs:
            yield from self._leaves(one)

    def questions(self, name: str) -> QuestionSet:
        """A set of the task.

        Raises:
            InputError: when the task has no such set, or it is empty.
        """
        if name not in self.sets:
            raise InputError(f"the task has no set {name!r} to measure on; it has {', '.join(self.sets)}.")
        if not len(self.sets[name]):
            raise InputError(f"the set {name} has no rows to measure on.")
        return self.sets[name]

    @cached_property
    def model(self) -> str:
        """Hash of the weights, the class and the arguments that are not weights."""
        from mu.generation import model_identity

        return model_identity(self.backbone, self.weights)

    @cached_property
    def weights(self) -> str:
        """Hash of the weights."""
        from mu.weights import weights_hash

        return weights_hash(self.backbone)

    # ---- for leaves ---------------------------------------------------------------------------------------------------------------

    def encoded(self, leaf: Leaf[Any]) -> Encoded:
        """A leaf's sequences, encoded once."""
        if leaf not in self._encoded:
            self._encoded[leaf] = leaf.encode(self)
        return self._encoded[leaf]

    def run(self, leaf: Leaf[Any], encoded: Encoded, settings: Mapping[str, Any], count: int, work: Callable[[int], Any], what: str) -> Any:
        """The results of a leaf's batches, by ranks, from disk where they are there, with the model in eval mode."""
        key = digest([_FORMAT, type(leaf).__name__, self.model, self.precision, encoded.tokens, dict(settings)]) if self.folder else ""
        with self._evaluating():
            return pieces(count, work, key=key, folder=self.folder, ranks=self.ranks, what=what)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        from mu.attacks.base import attackable

        with attackable(self.backbone), self.within():
            yield


@dataclass(frozen=True)
class Encoded:
    """Sequences of a leaf: `pairs` with labels, or prompts without; `row` is each one's position in its set.

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


@dataclass(frozen=True)
class Scored(Leaf[Scores]):
    """What the model gives to the tokens of answers.

    Attributes:
        set: of questions.
        answer: which answer; `perturbed_answer` gives several to a row.
        question: which wording of the question.
        prefix: words that the answer begins with and that are not scored.
    """

    set: str
    answer: Answer = "answer"
    question: Question = "question"
    prefix: str = ""

    def encode(self, graph: Graph) -> Encoded:
        rows = graph.questions(self.set)
        pairs, owners = [], []
        for number, (question, answers) in enumerate(zip(rows.column(self.question), rows.column(self.answer), strict=True)):
            where = f"row {number} of the set {self.set}"
            if isinstance(answers, str) == (self.answer == "perturbed_answer"):
                kind = "a list of texts" if self.answer == "perturbed_answer" else "one text"
                raise InputError(f"{self.answer} of {where} is not {kind}.")
            for answer in [answers] if isinstance(answers, str) else answers:
                pairs.append(_pair(graph.encoder, question, str(answer), self.prefix, where))
                owners.append(number)
        row = torch.tensor(owners)
        return Encoded(pairs, row, torch.as_tensor(rows.indices)[row], tokens_hash(pairs))

    def evaluate(self, graph: Graph, *inputs: Any) -> Scores:
        found = graph.encoded(self)
        order = batches([len(ids) for ids, _ in found.pairs], graph.tokens_per_batch)
        length, ended = counted(found.pairs, graph.encoder.eos)
        parts = graph.run(self, found, {"tokens_per_batch": graph.tokens_per_batch}, len(order),
                          lambda number: token_scores(graph.backbone, collate([found.pairs[place] for place in order[number]])),
                          f"scoring {self.set}")
        return Scores(found.index, found.row, torch.tensor(length), torch.tensor(ended), tokens=found.tokens,
                      **assembled(parts, order, length))


def _pair(encoder: Encoder, question: str, answer: str, prefix: str, where: str) -> Pair:
    """Ids and labels of an answer, of which the prefix is not scored."""
    if not prefix:
        return encoder.pair(question, answer, where)
    ids, labels = encoder.pair(question, f"{prefix} {answer}", where)
    begun = encoder.prompt(question, begin=prefix)
    start = next((place for place, (a, b) in enumerate(zip(ids, begun, strict=False)) if a != b), min(len(ids), len(begun)))
    return ids, [IGNORED] * start + labels[start:]


@dataclass(frozen=True)
class Generated(Leaf[Texts]):
    """What the model answers, greedily.

    Attributes:
        set: of questions.
        question: which wording.
        prefix: words that the answer is made to begin with (a jailbreak that says yes); they are no part of the text.
        max_new_tokens: at most.
        stop: strings at which an answer ends.
        rows: positions of some rows; None takes all.
    """

    set: str
    question: Question = "question"
    prefix: str = ""
    max_new_tokens: int = 200
    stop: tuple[str, ...] = ()
    rows: tuple[int, ...] | None = None

    def encode(self, graph: Graph) -> Encoded:
        rows = graph.questions(self.set)
        rows = rows if self.rows is None else rows.at(self.rows)
        prompts = [(graph.encoder.prompt(question, begin=self.prefix), []) for question in rows.column(self.question)]
        return Encoded(prompts, torch.arange(len(rows)), torch.as_tensor(rows.indices),
                       digest([[ids for ids, _ in prompts], self.max_new_tokens, self.stop]))

    def evaluate(self, graph: Graph, *inputs: Any) -> Texts:
        found = graph.encoded(self)
        prompts = [ids for ids, _ in found.pairs]
        places = sorted(range(len(prompts)), key=lambda place: (-len(prompts[place]), place))
        order = [places[start : start + graph.prompts_per_batch] for start in range(0, len(places), graph.prompts_per_batch)]
        parts = graph.run(
            self, found, {"prompts_per_batch": graph.prompts_per_batch}, len(order),
            lambda number: continued(graph.backbone, [prompts[place] for place in order[number]], self.max_new_tokens, self.stop),
            f"answering {self.set}")
        said = {place: text for places, part in zip(order, parts, strict=True) for place, text in zip(places, unpacked(part), strict=True)}
        return Texts(found.index, tuple(said[place] for place in range(len(prompts))), found.tokens)


@dataclass(frozen=True)
class GradientNorms(Leaf[Tensor]):
    """The gradient-norm score of each answer, `[N]`: one backward pass an item.

    Attributes:
        set: of questions.
        p: of the norm.
    """

    set: str
    p: float = 2.0
    _EACH: ClassVar[int] = 8  # items of a piece

    def encode(self, graph: Graph) -> Encoded:
        return graph.encoded(Scored(self.set))

    def evaluate(self, graph: Graph, *inputs: Any) -> Tensor:
        found = graph.encoded(self)
        if graph.ranks.lockstep:  # autograd.grad sees the shards, which have no part in the forward pass
            raise InputError("gradients of single items are not to be had from sharded weights; test the run with the strategy ddp, or "
                             "leave the gradient-norm attack out.")
        starts = range(0, len(found.pairs), self._EACH)
        parts = graph.run(self, found, {"p": self.p}, len(starts),
                          lambda number: gradient_scores(graph.backbone, found.pairs[starts[number] : starts[number] + self._EACH], self.p),
                          f"gradients of {self.set}")
        return torch.cat([part["score"] for part in parts])
