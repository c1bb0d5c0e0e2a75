"""Linear probes and the logit lens: knowledge in the hidden states of a language model.

Linear probe (Alain and Bengio, 2016, arXiv 1610.01644; of unlearned models, Lynch et al., 2024,
arXiv 2402.16835). The prompt is the question and the common beginning of a right and a wrong
answer; a and b are the first tokens that differ. With h the output of a layer at the prompt's last
token, after the model's final norm, and u the rows of its output matrix, a logistic regression
without intercept learns, on half of the questions,

    P(a is right) = σ(Σ_d w_d h_d (u_a - u_b)_d + v h · (u_a - u_b)),

and is tested on the other half. It is linear in h; the last term, the logit lens, is the prediction
of an untrained probe. 0.5 is chance. (A probe of the state after a complete answer, right or
wrong, was at chance for a small model that had memorised every answer: it predicts the next token,
but does not mark an answer as false.)

Logit lens (nostalgebraist, 2020; against deletion, Patil, Hase and Bansal, ICLR 2024, arXiv
2309.17410): the output of each layer goes through the model's own final norm and output matrix,
softmax(U norm(h)), in which the true token has a probability and a rank (0 = the likeliest). At the
last layer this is the model's own prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mu.evaluation.text.graph import Encoded, Graph, Leaf, Measurement, Metric, Node
from mu.evaluation.text.hidden_states import check_lens, fork_features, logit_lens, probed_model
from mu.evaluation.text.leaves import Answer, Scored
from mu.evaluation.text.linear_probe import linear_probe, mean_by_row, training_half
from mu.evaluation.text.scores import NOT_FINITE, batches_by_length
from mu.functional.tokens import IGNORED
from mu.utils.errors import InputError, UndefinedError
from mu.utils.fingerprint import digest


@dataclass(frozen=True)
class ForkPrompts(Encoded):
    """Prompts that end at the first token at which a right and a wrong answer differ.

    Attributes:
        choices: `[P, 2]` int64, the next token of the right and of the wrong answer.
    """

    choices: Tensor


@dataclass(frozen=True)
class ForkFeatures(Leaf[Tensor]):
    """Probe features h ⊙ (u_right - u_wrong) of every layer, for each wrong answer.

    `[P, layers, D]` in single precision, on the CPU.

    Attributes:
        set: name of a question set with wrong answers.
        right: column of the true answers.
    """

    set: str
    right: Answer = "paraphrased_answer"

    def encode(self, graph: Graph) -> ForkPrompts:
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
        return ForkPrompts(
            prompts,
            wrong.row,
            wrong.index,
            digest([right.tokens, wrong.tokens]),
            torch.tensor(choices),
        )

    def evaluate(self, graph: Graph, *inputs: Any) -> Tensor:
        encoded = graph.encoded(self)
        assert isinstance(encoded, ForkPrompts)
        order = batches_by_length([len(ids) for ids, _ in encoded.pairs], graph.tokens_per_batch)
        model = probed_model(graph.backbone)

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
    """Accuracy of a linear probe that separates right from wrong answers, at its best layer.

    The layer is chosen on the test questions, which biases the accuracy upwards; choose the layer
    of a control in the same way.

    Attributes:
        set: name of a question set with wrong answers.
        right: column of the true answers; sets without a paraphrase use `answer`.
        seed: draws the half of the questions that the probe is trained on.
        strength: C of scikit-learn, the inverse of the penalty on w. On the small model that comes
            with mu, 0.01 was more accurate than 1 on memorised questions, and not on unseen ones.
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
        learns = training_half(torch.tensor(graph.questions(self.set).indices), self.seed)
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
    """Logit-lens ranks and probabilities of n labelled tokens.

    Attributes:
        row: `[n]` int64, position of the token's row in the set.
        rank: `[n, layers]` int64, number of tokens with a larger logit than the true one.
        probability: `[n, layers]`, probability of the true token.
    """

    row: Tensor
    rank: Tensor
    probability: Tensor


@dataclass(frozen=True)
class LensScores(Leaf[Lens]):
    """Logit-lens scores of the answer tokens at every layer, without the end of the sequence."""

    set: str

    def encode(self, graph: Graph) -> Any:
        return graph.encoded(Scored(self.set))

    def evaluate(self, graph: Graph, *inputs: Any) -> Lens:
        # read the answers at every layer
        encoded = graph.encoded(self)
        order = batches_by_length([len(ids) for ids, _ in encoded.pairs], graph.tokens_per_batch)
        model = probed_model(graph.backbone)
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
        # row of each token
        indices = torch.tensor([index for batch in order for index in batch])
        row = torch.cat(
            [
                encoded.row[indices[part["sequence"] + start]]
                for part, start in zip(parts, _batch_starts(order), strict=True)
            ]
        )
        return Lens(
            row,
            torch.cat([part["rank"] for part in parts]),
            torch.cat([part["probability"] for part in parts]),
        )


@dataclass(frozen=True)
class LensAccuracy(Metric):
    """Logit-lens accuracy: share of answer tokens that a layer ranks first, at its best layer.

    The mean over answers.
    """

    stem: ClassVar[str] = "logit_lens"
    set: str

    @property
    def inputs(self) -> tuple[Node[Any], ...]:
        return (LensScores(self.set),)

    def evaluate(self, graph: Graph, *inputs: Any) -> Measurement:
        lens: Lens = inputs[0]
        rows = len(graph.questions(self.set))
        if bool(lens.probability.isnan().any()):
            raise UndefinedError(NOT_FINITE)
        # average over the tokens of each row
        hits, probability, inverse = (
            mean_by_row(values, lens.row, rows)
            for values in (
                (lens.rank == 0).double(),
                lens.probability.double(),
                1 / (1 + lens.rank.double()),
            )
        )
        # choose the layer
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


def _batch_starts(order: Sequence[Sequence[int]]) -> list[int]:
    """Index of the first sequence of each batch."""
    return np.cumsum([0, *(len(batch) for batch in order[:-1])]).tolist()
