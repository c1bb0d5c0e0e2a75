"""What the hidden states of a language model still hold, whatever it says: a linear probe and the logit lens.

Linear probe (Patil, Hase and Bansal, "Can sensitive information be deleted from LLMs?", ICLR 2024, arXiv 2309.17410, look into hidden
states for what was edited away; probes go back to Alain and Bengio, 2016, arXiv 1610.01644). The model reads a question with the right
answer and with a wrong one; h is the output of a layer at the last token before the end of the sequence. On half of the questions a
logistic regression without intercept learns w from the differences

    P(first is right) = σ(w · (h_first - h_second)),

both orders shown, and on the other half it says which of two answers is right. 0.5 is chance.

Logit lens (nostalgebraist, 2020): the output h of each layer goes through the model's own final norm and output matrix, softmax(W norm(h)),
and the token that is true at that place has a probability and a rank (0 = the likeliest). At the last layer that is the model itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mu import draws
from mu.backbones import CausalLM
from mu.backbones.logit_difference import TwoModels
from mu.copies import check_whole
from mu.encoding import IGNORED, Pair, collate
from mu.errors import InputError, RunError
from mu.metric_graph import Answer, Graph, Leaf, Measurement, Metric, Node, Scored
from mu.text_scores import batches

_AT_ONCE = 2**25
"""Logits of a layer that are made at once (128 MiB in single precision)."""
_TOLERANCE = 0.02  # of the largest logit: half precision rounds the lens and the model at different places


@dataclass(frozen=True)
class LastStates(Leaf[Tensor]):
    """Outputs of every layer at the last token of question and answer (the end of the sequence left out), `[P, layers, D]`, on the CPU.

    Attributes:
        set: of questions.
        answer: which answer; `perturbed_answer` gives several to a row.
    """

    set: str
    answer: Answer = "answer"

    def encode(self, graph: Graph) -> Any:
        return graph.encoded(Scored(self.set, self.answer))

    def evaluate(self, graph: Graph, *inputs: Any) -> Tensor:
        found = graph.encoded(self)
        order = batches([len(ids) for ids, _ in found.pairs], graph.tokens_per_batch)
        model, eos = readable(graph.backbone), graph.encoder.eos
        parts = graph.run(self, found, {"tokens_per_batch": graph.tokens_per_batch}, len(order),
                          lambda number: {"states": last_states(model, [found.pairs[place] for place in order[number]], eos)},
                          f"reading {self.set}")
        places = torch.tensor([place for batch in order for place in batch])
        return torch.cat([part["states"] for part in parts])[places.argsort()]


@dataclass(frozen=True)
class ProbeAccuracy(Metric):
    """Share of right choices between a right and a wrong answer, by a linear probe, at the layer where it is largest.

    The layer is chosen on the questions that it is tested on, which flatters it; so a control must be chosen in the same way.

    Attributes:
        set: of questions with wrong answers.
        right: the answer that stands for the truth; sets without a paraphrase take `answer`.
        seed: which half of the questions the probe learns from.
        strength: C of scikit-learn, the inverse of the penalty on w.
    """

    stem: ClassVar[str] = "linear_probe"
    set: str
    right: Answer = "paraphrased_answer"
    seed: int = 0
    strength: float = 1.0

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return LastStates(self.set, self.right), LastStates(self.set, "perturbed_answer")

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        right, wrong = inputs
        owner = graph.encoded(LastStates(self.set, "perturbed_answer")).row
        index = torch.as_tensor(graph.questions(self.set).indices)
        learns = halves(index, self.seed)
        accuracy = linear_probe(right, wrong, owner, learns, self.strength)
        layer = int(accuracy.argmax())
        return Measurement(accuracy[layer].item(), detail={
            "layer": layer, "by_layer": [round(value, 4) for value in accuracy.tolist()], "questions_learnt_from": int(learns.sum()),
            "questions": int((~learns).sum()), "pairs": int((~learns)[owner].sum()), "probe_seed": self.seed, "C": self.strength})


@dataclass(frozen=True)
class Lens:
    """What the logit lens sees at n labelled tokens.

    Attributes:
        row: `[n]` int64, position of the token's row in the set.
        rank: `[n, layers]` int64, tokens that the layer finds likelier than the true one.
        probability: `[n, layers]` of the true token.
    """

    row: Tensor
    rank: Tensor
    probability: Tensor


@dataclass(frozen=True)
class LensScores(Leaf[Lens]):
    """The true token of every place of an answer, through the logit lens of every layer; the end of the sequence left out."""

    set: str

    def encode(self, graph: Graph) -> Any:
        return graph.encoded(Scored(self.set))

    def evaluate(self, graph: Graph, *inputs: Any) -> Lens:
        found = graph.encoded(self)
        order = batches([len(ids) for ids, _ in found.pairs], graph.tokens_per_batch)
        model, eos = readable(graph.backbone), graph.encoder.eos
        check_lens(model, found.pairs[order[0][0]])
        parts = graph.run(self, found, {"tokens_per_batch": graph.tokens_per_batch}, len(order),
                          lambda number: logit_lens(model, [found.pairs[place] for place in order[number]], eos), f"reading {self.set}")
        places = torch.tensor([place for batch in order for place in batch])
        row = torch.cat([found.row[places[part["sequence"] + start]] for part, start in zip(parts, _starts(order), strict=True)])
        return Lens(row, torch.cat([part["rank"] for part in parts]), torch.cat([part["probability"] for part in parts]))


@dataclass(frozen=True)
class LensAccuracy(Metric):
    """Share of an answer's tokens that are a layer's first choice, mean over answers, at the layer where it is largest."""

    stem: ClassVar[str] = "logit_lens"
    set: str

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (LensScores(self.set),)

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        lens: Lens = inputs[0]
        rows = len(graph.questions(self.set))
        hits, probability, inverse = (by_row(values, lens.row, rows) for values in (
            (lens.rank == 0).double(), lens.probability.double(), 1 / (1 + lens.rank.double())))
        accuracy = hits.mean(0)
        layer = int(accuracy.argmax())
        told = {"by_layer": accuracy, "probability_by_layer": probability.mean(0), "reciprocal_rank_by_layer": inverse.mean(0)}
        return Measurement(accuracy[layer].item(), torch.as_tensor(graph.questions(self.set).indices), hits[:, layer], {
            "layer": layer, **{name: [round(value, 4) for value in values.tolist()] for name, values in told.items()},
            "last_layer": accuracy[-1].item(), "tokens": len(lens.row)})


# ---- reading --------------------------------------------------------------------------------------------------------------------------


def readable(backbone: Any) -> CausalLM:
    """The language model whose hidden states are read: of two that answer as one, the first, from which the answer is made.

    Raises:
        InputError: when there is none, or its weights are sharded.
    """
    while isinstance(backbone, TwoModels):
        backbone = backbone.base
    if not isinstance(backbone, CausalLM):
        raise InputError(f"probes read the layers of a causal language model, which {type(backbone).__name__} is not.")
    check_whole(backbone)
    return backbone


@torch.no_grad()
def layer_outputs(model: CausalLM, batch: dict[str, Tensor]) -> list[Tensor]:
    """The output `[B, T, D]` of every decoder layer, in one forward pass, before the final norm."""
    seen: list[Tensor] = []

    def keep(layer: nn.Module, given: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layer.register_forward_hook(keep) for layer in model.decoder_layers]
    try:
        model.hidden(batch, -1)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def last_states(model: CausalLM, pairs: Sequence[Pair], eos: int) -> Tensor:
    """Outputs of every layer at the last token that is not the end of the sequence, `[B, layers, D]` in single precision, on the CPU."""
    places = torch.tensor([len(ids) - 1 - (len(ids) > 1 and ids[-1] == eos) for ids, _ in pairs])
    batch = _batch(model, pairs)
    rows, places = torch.arange(len(pairs), device=batch["input_ids"].device), places.to(batch["input_ids"].device)
    return torch.stack([output[rows, places] for output in layer_outputs(model, batch)], 1).float().cpu()


@torch.no_grad()
def logit_lens(model: CausalLM, pairs: Sequence[Pair], eos: int) -> dict[str, Tensor]:
    """Rank and probability of the true token at every labelled place but the end of the sequence.

    Returns:
        On the CPU: `sequence` `[n]` int64, which pair the token belongs to; `rank` `[n, layers]` int64; `probability` `[n, layers]`.
    """
    norm, head = ending(model)
    batch = _batch(model, pairs)
    labels = batch["labels"][:, 1:]
    real = labels != IGNORED
    last = torch.tensor([len(ids) - 2 for ids, _ in pairs], device=labels.device)  # where the last label stands after the shift
    ended = torch.tensor([ids[-1] == eos for ids, _ in pairs], device=labels.device)
    real[torch.arange(len(pairs), device=labels.device)[ended], last[ended]] = False
    wanted = labels[real]
    step = max(1, _AT_ONCE // model.vocabulary)
    ranks, probabilities = [], []
    for output in layer_outputs(model, batch):
        chosen = output[:, :-1][real]
        parts = [_place_of(head(norm(chosen[start : start + step])), wanted[start : start + step])
                 for start in range(0, len(wanted), step)]
        ranks.append(torch.cat([rank for rank, _ in parts]) if parts else wanted)
        probabilities.append(torch.cat([value for _, value in parts]) if parts else wanted.float())
    return {"sequence": real.nonzero()[:, 0].cpu(), "rank": torch.stack(ranks, 1).cpu(), "probability": torch.stack(probabilities, 1).cpu()}


def ending(model: CausalLM) -> tuple[nn.Module, nn.Module]:
    """The final norm and the output matrix.

    Raises:
        InputError: when the model has not exactly one norm after its layers, or no output matrix.
    """
    network: Any = model.network
    norms = [child for child in network.base_model.children() if "norm" in type(child).__name__.lower()]
    head = network.get_output_embeddings()
    if len(norms) != 1 or head is None:
        raise InputError(f"the logit lens needs one norm after the layers and an output matrix, and {type(network).__name__} has {len(norms)} "
                         f"norms and {'no' if head is None else 'a'} matrix.")
    return norms[0], head


@torch.no_grad()
def check_lens(model: CausalLM, pair: Pair) -> None:
    """Refuse a model whose last layer, seen through the lens, is not what the model says (a cap or a scale on its logits).

    Raises:
        InputError: names the model.
    """
    norm, head = ending(model)
    batch = _batch(model, [pair])
    said, seen = model.predict(batch), head(norm(layer_outputs(model, batch)[-1]))
    if (said - seen).abs().max() > _TOLERANCE * said.abs().max():
        raise InputError(f"{type(model.network).__name__} does more to its logits than a norm and a matrix, so the logit lens would show "
                         "other numbers than the model; leave LogitLens out.")


def _batch(model: CausalLM, pairs: Sequence[Pair]) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in collate(pairs).items()}


def _place_of(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Rank and probability of tokens `[n]` under logits `[n, V]`."""
    logits = logits.float()
    own = logits.gather(1, wanted[:, None])
    return (logits > own).sum(1), (own[:, 0] - logits.logsumexp(1)).exp()


def _starts(order: Sequence[Sequence[int]]) -> list[int]:
    """Where each batch begins in the sequence of all."""
    return np.cumsum([0, *(len(batch) for batch in order[:-1])]).tolist()


# ---- arithmetic -----------------------------------------------------------------------------------------------------------------------


def halves(index: Tensor, seed: int) -> Tensor:
    """Which of the questions `[N]` a probe learns from: the smaller half, drawn by their stable indices, as bool `[N]`."""
    if len(index) < 2:
        raise InputError(f"a linear probe learns from half of the questions, and there is {len(index)}.")
    order = draws.uniform(seed, index, 0, "linear-probe", 1)[:, 0].argsort(stable=True)
    learns = torch.zeros(len(index), dtype=torch.bool)
    learns[order[: len(index) // 2]] = True
    return learns


def linear_probe(right: Tensor, wrong: Tensor, owner: Tensor, learns: Tensor, strength: float = 1.0) -> Tensor:
    """Share of right choices on the questions that the probe did not learn from, by layer: `[layers]` in [0, 1], float64.

    A question counts once, however many wrong answers it has; a tie counts half.

    Args:
        right: `[N, layers, D]`, states of the right answers.
        wrong: `[P, layers, D]`, states of wrong answers.
        owner: `[P]` int64 in [0, N), the question of each wrong answer.
        learns: `[N]` bool, the questions to learn from.
        strength: C of scikit-learn.
    """
    from sklearn.linear_model import LogisticRegression

    shown = learns[owner].numpy()
    found = []
    for layer in range(right.shape[1]):
        gap = (right[owner, layer].double() - wrong[:, layer].double()).numpy()
        if not np.isfinite(gap).all():
            raise RunError(f"the output of layer {layer} is not finite, so nothing can be read from it.")
        size = np.sqrt(np.square(gap[shown]).mean(0))
        gap = gap / np.where(size > 0, size, 1.0)
        seen = np.concatenate([gap[shown], -gap[shown]])
        probe = LogisticRegression(C=strength, fit_intercept=False, max_iter=1000)
        probe.fit(seen, np.repeat([1, 0], int(shown.sum())))
        choice = gap[~shown] @ probe.coef_[0]
        hits = torch.from_numpy(np.where(choice == 0, 0.5, choice > 0).astype(np.float64))
        tested = owner[~learns[owner]]
        found.append(by_row(hits[:, None], tested, len(right))[~learns].mean())
    return torch.stack(found)


def by_row(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Mean of the values `[n, K]` of each row, `[rows, K]`; 0 for a row without any."""
    summed = torch.zeros(rows, values.shape[1], dtype=torch.float64).index_add(0, row, values.double())
    return summed / torch.bincount(row, minlength=rows).clamp_min(1)[:, None]
