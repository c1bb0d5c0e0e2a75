"""What the hidden states of a language model still hold, whatever it says: a linear probe and the
logit lens.

Linear probe (Alain and Bengio, 2016, arXiv 1610.01644; of unlearned models, Lynch et al., 2024,
arXiv 2402.16835). The prompt is the question and what a right and a wrong answer have in common; a
and b are the two tokens with which they part. With h the output of a layer at the prompt's last
token, after the model's final norm, and u the rows of its output matrix, a logistic regression
without intercept learns, on half of the questions,

    P(a is right) = σ(Σ_d w_d h_d (u_a - u_b)_d + v h · (u_a - u_b)),

and chooses on the other half. It is linear in h; the last term, the logit lens, is what a probe
that learned nothing would say. 0.5 is chance. (A probe of the state after a whole answer, right or
wrong, was at chance for a small model that knew every answer by heart: such a model knows what
comes next, and not that something was false.)

Logit lens (nostalgebraist, 2020; against deletion, Patil, Hase and Bansal, ICLR 2024, arXiv
2309.17410): the output of each layer goes through the model's own final norm and output matrix,
softmax(U norm(h)), and the token that is true at that place has a probability and a rank (0 = the
likeliest). At the last layer that is the model itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mu.backbones import CausalLM
from mu.backbones.language.two_models import TwoModels
from mu.data.encoding import Pair, collate
from mu.evaluation.text.graph import Encoded, Graph, Leaf, Measurement, Metric, Node
from mu.evaluation.text.leaves import Answer, Scored
from mu.evaluation.text.scores import batches
from mu.functional.tokens import IGNORED
from mu.utils import rng
from mu.utils.errors import InputError, RunError
from mu.utils.fingerprint import digest
from mu.utils.modules import check_whole

_AT_ONCE = 2**25
"""Logits of a layer that are made at once (128 MiB in single precision)."""
_TOLERANCE = (
    0.02  # of the largest logit: half precision rounds the lens and the model at different places
)


@dataclass(frozen=True)
class Forked(Encoded):
    """Prompts that end where a right and a wrong answer part.

    Attributes:
        choices: `[P, 2]` int64, the next token of the right and of the wrong answer.
    """

    choices: Tensor


@dataclass(frozen=True)
class ForkFeatures(Leaf[Tensor]):
    """h ⊙ (u_right - u_wrong) of every layer, for each wrong answer: `[P, layers, D]` in single
    precision, on the CPU.

    Attributes:
        set: of questions with wrong answers.
        right: the answer that stands for the truth.
    """

    set: str
    right: Answer = "paraphrased_answer"

    def encode(self, graph: Graph) -> Forked:
        right = graph.encoded(Scored(self.set, self.right))
        wrong = graph.encoded(Scored(self.set, "perturbed_answer"))
        prompts = []
        choices = []
        for (ids, _), row in zip(wrong.pairs, wrong.row.tolist(), strict=True):
            true = right.pairs[row][0]
            fork = next(
                (index for index, (a, b) in enumerate(zip(true, ids, strict=False)) if a != b), None
            )
            if fork is None:
                raise InputError(
                    f"a wrong answer of row {row} of the set {self.set} is its {self.right} or a "
                    "part of it, so there is nothing to choose between."
                )
            prompts.append((true[:fork], [IGNORED] * fork))
            choices.append([true[fork], ids[fork]])
        return Forked(
            prompts,
            wrong.row,
            wrong.index,
            digest([right.tokens, wrong.tokens]),
            torch.tensor(choices),
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Tensor:
        encoded = graph.encoded(self)
        assert isinstance(encoded, Forked)
        order = batches([len(ids) for ids, _ in encoded.pairs], graph.tokens_per_batch)
        model = readable(graph.backbone)

        def work(number: int) -> dict[str, Tensor]:
            return {
                "features": fork_features(
                    model,
                    [encoded.pairs[index][0] for index in order[number]],
                    encoded.choices[order[number]],
                )
            }

        parts = graph.run(
            self,
            encoded,
            {"tokens_per_batch": graph.tokens_per_batch},
            len(order),
            work,
            f"reading {self.set}",
        )
        indices = torch.tensor([index for batch in order for index in batch])
        return torch.cat([part["features"] for part in parts])[indices.argsort()]


@dataclass(frozen=True)
class ProbeAccuracy(Metric):
    """Share of right choices between a right and a wrong answer, by a linear probe, at the layer
    where it is largest.

    The layer is chosen on the questions that it is tested on, which flatters it; so a control must
    be chosen in the same way.

    Attributes:
        set: of questions with wrong answers.
        right: the answer that stands for the truth; sets without a paraphrase take `answer`.
        seed: which half of the questions the probe learns from.
        strength: C of scikit-learn, the inverse of the penalty on w. With 0.01, probes of the small
            model that comes with mu chose better than with 1 on questions that it knew, and no
            better on those that it did not.
    """

    stem: ClassVar[str] = "linear_probe"
    set: str
    right: Answer = "paraphrased_answer"
    seed: int = 0
    strength: float = 0.01

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (ForkFeatures(self.set, self.right),)

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        owner = graph.encoded(ForkFeatures(self.set, self.right)).row
        learns = halves(torch.tensor(graph.questions(self.set).indices), self.seed)
        accuracy = linear_probe(inputs[0], owner, learns, self.strength)
        layer = int(accuracy.argmax())
        return Measurement(
            accuracy[layer].item(),
            detail={
                "layer": layer,
                "by_layer": [round(value, 4) for value in accuracy.tolist()],
                "questions_learnt_from": int(learns.sum()),
                "questions": int((~learns).sum()),
                "pairs": int((~learns)[owner].sum()),
                "probe_seed": self.seed,
                "C": self.strength,
            },
        )


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
    """The true token of every place of an answer, through the logit lens of every layer; the end of
    the sequence left out.
    """

    set: str

    def encode(self, graph: Graph) -> Any:
        return graph.encoded(Scored(self.set))

    def evaluate(self, graph: Graph, *inputs: Any) -> Lens:
        encoded = graph.encoded(self)
        order = batches([len(ids) for ids, _ in encoded.pairs], graph.tokens_per_batch)
        model = readable(graph.backbone)
        eos = graph.encoder.eos
        check_lens(model, encoded.pairs[order[0][0]])
        parts = graph.run(
            self,
            encoded,
            {"tokens_per_batch": graph.tokens_per_batch},
            len(order),
            lambda number: logit_lens(
                model, [encoded.pairs[index] for index in order[number]], eos
            ),
            f"reading {self.set}",
        )
        indices = torch.tensor([index for batch in order for index in batch])
        row = torch.cat(
            [
                encoded.row[indices[part["sequence"] + start]]
                for part, start in zip(parts, _starts(order), strict=True)
            ]
        )
        return Lens(
            row,
            torch.cat([part["rank"] for part in parts]),
            torch.cat([part["probability"] for part in parts]),
        )


@dataclass(frozen=True)
class LensAccuracy(Metric):
    """Share of an answer's tokens that are a layer's first choice, mean over answers, at the layer
    where it is largest.
    """

    stem: ClassVar[str] = "logit_lens"
    set: str

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (LensScores(self.set),)

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        lens: Lens = inputs[0]
        rows = len(graph.questions(self.set))
        hits, probability, inverse = (
            by_row(values, lens.row, rows)
            for values in (
                (lens.rank == 0).double(),
                lens.probability.double(),
                1 / (1 + lens.rank.double()),
            )
        )
        accuracy = hits.mean(0)
        layer = int(accuracy.argmax())
        curves = {
            "by_layer": accuracy,
            "probability_by_layer": probability.mean(0),
            "reciprocal_rank_by_layer": inverse.mean(0),
        }
        return Measurement(
            accuracy[layer].item(),
            torch.tensor(graph.questions(self.set).indices),
            hits[:, layer],
            {
                "layer": layer,
                **{
                    name: [round(value, 4) for value in values.tolist()]
                    for name, values in curves.items()
                },
                "last_layer": accuracy[-1].item(),
                "tokens": len(lens.row),
            },
        )


# ---- reading -------------------------------------------------------------------------------------


def readable(backbone: Any) -> CausalLM:
    """The language model whose hidden states are read: of two that answer as one, the first, from
    which the answer is made.

    Raises:
        InputError: when there is none, or its weights are sharded.
    """
    while isinstance(backbone, TwoModels):
        backbone = backbone.base
    if not isinstance(backbone, CausalLM):
        raise InputError(
            f"probes read the layers of a causal language model, which {type(backbone).__name__} "
            "is not."
        )
    check_whole(backbone)
    return backbone


@torch.no_grad()
def layer_outputs(model: CausalLM, batch: dict[str, Tensor]) -> list[Tensor]:
    """The output `[B, T, D]` of every decoder layer, in one forward pass, before the final norm."""
    outputs: list[Tensor] = []

    def keep(layer: nn.Module, given: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layer.register_forward_hook(keep) for layer in model.decoder_layers]
    try:
        model.hidden(batch, -1)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


@torch.no_grad()
def fork_features(model: CausalLM, prompts: Sequence[list[int]], choices: Tensor) -> Tensor:
    """norm(h) ⊙ (u_a - u_b) of every layer at the last token of each prompt: `[B, layers, D]` in
    single precision, on the CPU.

    Args:
        model: whose states.
        prompts: token ids, B lists.
        choices: `[B, 2]` int64, the tokens a and b.
    """
    norm, head = ending(model)
    batch = _batch(model, [(ids, [IGNORED] * len(ids)) for ids in prompts])
    device = batch["input_ids"].device
    rows = torch.arange(len(prompts), device=device)
    last = torch.tensor([len(ids) - 1 for ids in prompts], device=device)
    written = head.weight[choices.to(device)].float()  # type: ignore[index]
    gap = written[:, 0] - written[:, 1]
    return torch.stack(
        [norm(output[rows, last]).float() * gap for output in layer_outputs(model, batch)], 1
    ).cpu()


@torch.no_grad()
def logit_lens(model: CausalLM, pairs: Sequence[Pair], eos: int) -> dict[str, Tensor]:
    """Rank and probability of the true token at every labelled place but the end of the sequence.

    Returns:
        On the CPU: `sequence` `[n]` int64, which pair the token belongs to; `rank` `[n, layers]`
        int64; `probability` `[n, layers]`.
    """
    norm, head = ending(model)
    batch = _batch(model, pairs)
    labels = batch["labels"][:, 1:]
    scored = labels != IGNORED
    # where the last label stands after the shift
    last = torch.tensor([len(ids) - 2 for ids, _ in pairs], device=labels.device)
    ended = torch.tensor([ids[-1] == eos for ids, _ in pairs], device=labels.device)
    scored[torch.arange(len(pairs), device=labels.device)[ended], last[ended]] = False
    targets = labels[scored]
    step = max(1, _AT_ONCE // model.vocabulary)
    ranks = []
    probabilities = []
    for output in layer_outputs(model, batch):
        chosen = output[:, :-1][scored]
        parts = [
            _place_of(head(norm(chosen[start : start + step])), targets[start : start + step])
            for start in range(0, len(targets), step)
        ]
        ranks.append(torch.cat([rank for rank, _ in parts]) if parts else targets)
        probabilities.append(torch.cat([value for _, value in parts]) if parts else targets.float())
    return {
        "sequence": scored.nonzero()[:, 0].cpu(),
        "rank": torch.stack(ranks, 1).cpu(),
        "probability": torch.stack(probabilities, 1).cpu(),
    }


def ending(model: CausalLM) -> tuple[nn.Module, nn.Module]:
    """The final norm and the output matrix.

    Raises:
        InputError: when the model has not exactly one norm after its layers, or no output matrix.
    """
    network: Any = model.network
    norms = [
        child for child in network.base_model.children() if "norm" in type(child).__name__.lower()
    ]
    head = network.get_output_embeddings()
    if len(norms) != 1 or head is None:
        raise InputError(
            "the logit lens needs one norm after the layers and an output matrix, and "
            f"{type(network).__name__} has {len(norms)} norms and {'no' if head is None else 'a'} "
            "matrix."
        )
    return norms[0], head


@torch.no_grad()
def check_lens(model: CausalLM, pair: Pair) -> None:
    """Refuse a model whose last layer, seen through the lens, is not what the model says (a cap or
    a scale on its logits).

    Raises:
        InputError: names the model.
    """
    norm, head = ending(model)
    batch = _batch(model, [pair])
    logits_ = model.predict(batch)
    seen = head(norm(layer_outputs(model, batch)[-1]))
    if (logits_ - seen).abs().max() > _TOLERANCE * logits_.abs().max():
        raise InputError(
            f"{type(model.network).__name__} does more to its logits than a norm and a matrix, so "
            "the logit lens would show other numbers than the model; leave LogitLens out."
        )


def _batch(model: CausalLM, pairs: Sequence[Pair]) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in collate(pairs).items()}


def _place_of(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Rank and probability of tokens `[n]` under logits `[n, V]`."""
    logits = logits.float()
    target_logits = logits.gather(1, targets[:, None])
    return (logits > target_logits).sum(1), (target_logits[:, 0] - logits.logsumexp(1)).exp()


def _starts(order: Sequence[Sequence[int]]) -> list[int]:
    """Where each batch begins in the sequence of all."""
    return np.cumsum([0, *(len(batch) for batch in order[:-1])]).tolist()


# ---- arithmetic ----------------------------------------------------------------------------------


def halves(index: Tensor, seed: int) -> Tensor:
    """Which of the questions `[N]` a probe learns from: the smaller half, drawn by their stable
    indices, as bool `[N]`.
    """
    if len(index) < 2:
        raise InputError(
            f"a linear probe learns from half of the questions, and there is {len(index)}."
        )
    order = rng.uniform(seed, index, 0, "linear-probe", 1)[:, 0].argsort(stable=True)
    learns = torch.zeros(len(index), dtype=torch.bool)
    learns[order[: len(index) // 2]] = True
    return learns


def linear_probe(features: Tensor, owner: Tensor, learns: Tensor, strength: float = 0.01) -> Tensor:
    """Share of right choices on the questions that the probe did not learn from, by layer:
    `[layers]` in [0, 1], float64.

    Each feature is divided by its root mean square over what is learnt from; so is their sum, the
    logit lens, which is then multiplied by √D, so that the penalty on its weight is as on equal
    weights of all D. Both orders of the two answers are learnt. A question counts once, however
    many wrong answers it has; a tie counts half.

    Args:
        features: `[P, layers, D]`, those of the right answer minus those of the wrong one.
        owner: `[P]` int64 in [0, N), the question of each pair.
        learns: `[N]` bool, the questions to learn from.
        strength: C of scikit-learn.
    """
    from sklearn.linear_model import LogisticRegression

    training = learns[owner].numpy()
    accuracies = []
    for layer in range(features.shape[1]):
        values = features[:, layer].double().numpy()
        if not np.isfinite(values).all():
            raise RunError(
                f"the output of layer {layer} is not finite, so nothing can be read from it."
            )
        lens = values.sum(1, keepdims=True)
        inputs = np.concatenate(
            [_scaled(values, training), _scaled(lens, training) * np.sqrt(values.shape[1])], 1
        )
        probe = LogisticRegression(C=strength, fit_intercept=False, max_iter=1000)
        probe.fit(
            np.concatenate([inputs[training], -inputs[training]]),
            np.repeat([1, 0], int(training.sum())),
        )
        choice = inputs[~training] @ probe.coef_[0]
        hits = torch.from_numpy(np.where(choice == 0, 0.5, choice > 0).astype(np.float64))
        accuracies.append(by_row(hits[:, None], owner[~learns[owner]], len(learns))[~learns].mean())
    return torch.stack(accuracies)


def _scaled(values: np.ndarray, training: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.square(values[training]).mean(0))
    return values / np.where(size > 0, size, 1.0)


def by_row(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Mean of the values `[n, K]` of each row, `[rows, K]`; 0 for a row without any."""
    summed = torch.zeros(rows, values.shape[1], dtype=torch.float64).index_add(
        0, row, values.double()
    )
    return summed / torch.bincount(row, minlength=rows).clamp_min(1)[:, None]
