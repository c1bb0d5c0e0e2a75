"""The metric graph: values against one row at a time, everything once, whatever was interrupted
goes on, and logs of others are refused.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mu.backbones import CausalLM
from mu.backbones.language.two_models import LogitDifference
from mu.data.encoding import Encoder, Plain
from mu.data.questions import QuestionSet
from mu.evaluation.text.graph import Graph, Metric
from mu.evaluation.text.leaves import GeneratedText, GradientNorms, Scored
from mu.evaluation.text.membership import (
    MEMBERSHIP_ATTACKS,
    MembershipAUC,
    MembershipScore,
    PrivacyScore,
    PrivLeak,
)
from mu.evaluation.text.metrics import (
    ExactMemorisation,
    ExtractionStrength,
    ForgetQuality,
    Loss,
    MemorisationScore,
    ModelUtility,
    Probability,
    Rouge,
    TruthRatio,
)
from mu.evaluation.text.oracle import OracleFile, OracleModel, SelfOracle, save_log
from mu.evaluation.text.scores import batches_by_length
from mu.metrics import memorisation, tofu
from mu.utils import resumable
from mu.utils.errors import InputError
from mu.utils.resumable import Ranks, map_chunks, packed, unpacked
from tests.support.doubles_text import causal_lm, folder, people, tokenizer
from tests.support.helpers import distance, weights

GOLDEN = (
    Path(__file__).resolve().parents[4]
    / "shared"
    / "data"
    / "llm"
    / "tofu_golden"
    / "eval_logs_llama2_7b.json"
)
SHORT = 6


def graph(backbone: Any = None, **changes: Any) -> Graph:
    task = people()
    return Graph(
        causal_lm() if backbone is None else backbone,
        task.sets,
        task.encoder,
        **{"tokens_per_batch": 150, **changes},
    )


def every_metric(log: Any = None) -> list[Metric]:
    found: list[Metric] = [
        Loss("forget"),
        Probability("forget"),
        Probability("forget", "paraphrased_answer", "paraphrased_question"),
        Probability("facts", normalised=True),
        Rouge("forget", max_new_tokens=SHORT),
        TruthRatio("forget"),
        TruthRatio("facts", "answer", "true_better"),
        TruthRatio("forget", score="probability"),
        ExactMemorisation("forget"),
        ExtractionStrength("forget"),
        ModelUtility(("retain", "facts"), ("facts",), SHORT),
        MemorisationScore("forget"),
        *[
            MembershipAUC(kind, "forget", "holdout")
            for kind in MEMBERSHIP_ATTACKS
            if kind != "reference"
        ],
    ]
    if log is not None:
        found += [
            ForgetQuality("forget", log),
            PrivLeak("forget", "holdout", log),
            PrivacyScore("forget", "holdout", log),
            MembershipAUC("reference", "forget", "holdout", log=log),
        ]
    return found


class Watched(CausalLM):
    """Counts what the model is asked to do, and may stop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: Counter[str] = Counter()
        self.stop_after: int | None = None

    def token_logits(self, batch: Any, prediction: Any = None) -> Any:
        self._count("rows", len(batch["labels"]))
        assert not self.training, "measured in train mode"
        return super().token_logits(batch, prediction)

    def generate(
        self, ids: Any, max_new_tokens: int = 200, stop: Any = (), batch_size: int = 32
    ) -> list[str]:
        self._count("prompts", len(ids))
        return super().generate(ids, max_new_tokens, stop, batch_size)

    def _count(self, what: str, number: int) -> None:
        if self.stop_after is not None and self.calls["batches"] >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.update({what: number, "batches": 1})


def watched() -> Watched:
    return Watched(model=folder())


# ---- values --------------------------------------------------------------------------------------


def by_hand(lm: CausalLM, question: str, answer: str) -> list[tuple[float, bool, float, float]]:
    """log p, hit, Σ p log p and Σ p log² p - (Σ p log p)² of each answer token and of the end, one
    row alone, in float64.
    """
    words = lm.tokenizer(f"Question: {question}\nAnswer: {answer}")["input_ids"] + [2]
    start = len(lm.tokenizer(f"Question: {question}\nAnswer: ")["input_ids"])
    with torch.no_grad():
        log_p = lm.network(torch.tensor([words])).logits[0].double().log_softmax(-1).numpy()
    found = []
    for place in range(start, len(words)):
        row = log_p[place - 1]
        p = np.exp(row)
        mean = float((p * row).sum())
        found.append(
            (
                float(row[words[place]]),
                int(row.argmax()) == words[place],
                mean,
                float((p * row**2).sum() - mean**2),
            )
        )
    return found


def test_scores_are_those_of_one_row_at_a_time() -> None:
    """Fails when padding, the order of batches or the shift by one shows in a value, or an answer
    loses or gains a token.
    """
    lm = causal_lm()
    here = graph()
    for answer in ("answer", "paraphrased_answer", "perturbed_answer"):
        scores = here.value(Scored("retain", answer))  # type: ignore[arg-type]
        rows = here.sets["retain"].rows
        expected = [
            by_hand(lm, row["question"], one)
            for row in rows
            for one in ([row[answer]] if answer != "perturbed_answer" else row[answer])
        ]
        assert (
            scores.length.tolist() == [len(row) for row in expected]
            and len(set(scores.length.tolist())) > 1
        )
        assert scores.ended.all()
        flat = [token for row in expected for token in row]
        np.testing.assert_allclose(scores.log_prob, [token[0] for token in flat], atol=2e-6)
        assert scores.hit.tolist() == [token[1] for token in flat]
        np.testing.assert_allclose(scores.mean, [token[2] for token in flat], atol=2e-6)
        np.testing.assert_allclose(scores.variance, [token[3] for token in flat], atol=2e-5)
        expected_nll = [-sum(token[0] for token in row) / len(row) for row in expected]
        np.testing.assert_allclose(scores.nll(), expected_nll, atol=2e-6)
        assert scores.index.tolist() == [
            index
            for index, row in zip(here.sets["retain"].indices, rows, strict=True)
            for _ in range(3 if answer == "perturbed_answer" else 1)
        ]


def test_metrics_are_their_formulas_on_those_values() -> None:
    """Fails when a metric takes another set, answer or token, counts the end of the sequence where
    it must not, or the reverse.
    """
    lm = causal_lm()
    here = graph(tokens_per_batch=77)
    sets = here.sets
    nll = {
        (name, field): [
            [-sum(t[0] for t in tokens) / len(tokens) for tokens in each]
            for each in (
                [
                    by_hand(lm, row["question"], one)
                    for one in (row[field] if isinstance(row[field], list) else [row[field]])
                ]
                for row in sets[name].rows
            )
        ]
        for name in ("forget", "facts", "holdout")
        for field in ("answer", "paraphrased_answer", "perturbed_answer")
    }
    one = {key: torch.tensor([row[0] for row in rows]) for key, rows in nll.items()}
    wrong = {name: torch.tensor(nll[name, "perturbed_answer"]) for name in ("forget", "facts")}
    body = {
        name: [by_hand(lm, row["question"], row["answer"])[:-1] for row in sets[name].rows]
        for name in ("forget", "holdout")
    }

    def near(node: Metric, items: Any, value: float | None = None) -> None:
        found = here.value(node)
        assert found.items is not None and found.index is not None
        items = np.asarray(items, dtype=np.float64)
        np.testing.assert_allclose(found.items, items, rtol=2e-5, atol=1e-7, err_msg=node.name)
        assert found.value == pytest.approx(items.mean() if value is None else value, rel=2e-5), (
            node.name
        )

    near(Loss("forget"), one["forget", "answer"])
    near(Probability("forget"), (-one["forget", "answer"]).exp())
    near(Probability("forget", "paraphrased_answer"), (-one["forget", "paraphrased_answer"]).exp())
    near(
        Probability("facts", normalised=True),
        tofu.normalised_probability(one["facts", "answer"], wrong["facts"]),
    )
    ratio = tofu.truth_ratio(one["forget", "paraphrased_answer"], wrong["forget"])
    near(TruthRatio("forget"), ratio, tofu.closer_to_one(ratio).mean().item())
    ratio = tofu.truth_ratio(one["facts", "answer"], wrong["facts"])
    near(TruthRatio("facts", "answer", "true_better"), ratio, tofu.true_better(ratio).mean().item())
    near(
        TruthRatio("forget", score="probability"),
        tofu.truth_probability(one["forget", "paraphrased_answer"], wrong["forget"]),
    )
    near(
        ExactMemorisation("forget"),
        [sum(t[1] for t in tokens) / len(tokens) for tokens in body["forget"]],
    )
    scores = {}
    for name in ("forget", "holdout"):
        low = [
            sorted(t[0] for t in tokens)[: max(1, int(0.4 * len(tokens)))] for tokens in body[name]
        ]
        z = [
            sorted((t[0] - t[2]) / math.sqrt(t[3]) for t in tokens)[
                : max(1, int(0.4 * len(tokens)))
            ]
            for tokens in body[name]
        ]
        scores[name] = {
            "loss": one[name, "answer"],
            "zlib": memorisation.zlib_score(one[name, "answer"], sets[name].column("answer")),
            "min_k": [-sum(row) / len(row) for row in low],
            "min_k_plus_plus": [-sum(row) / len(row) for row in z],
        }
        for kind, items in scores[name].items():
            near(MembershipScore(kind, name), items)
    for kind in ("loss", "zlib", "min_k", "min_k_plus_plus"):
        forget, holdout = (torch.as_tensor(scores[name][kind]) for name in ("forget", "holdout"))
        expected = (forget[:, None] < holdout).double().mean().item()
        assert here.value(MembershipAUC(kind, "forget", "holdout")).value == pytest.approx(
            expected, abs=0.02
        )


def test_a_single_batch_and_one_row_a_batch_agree() -> None:
    """Fails when a value hangs on what else is in its batch."""
    few = graph(tokens_per_batch=1, prompts_per_batch=1)
    many = graph(tokens_per_batch=10**6, prompts_per_batch=100)
    for node in every_metric():
        assert few.value(node).value == pytest.approx(many.value(node).value, rel=1e-4, abs=1e-6), (
            node.name
        )


def test_probabilities_of_half_precision_and_of_impossible_tokens() -> None:
    """Logits of -inf are a probability of 0, and nothing of them is NaN."""

    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def token_logits(self, batch: Any) -> Any:
            logits = torch.zeros(*batch["labels"].shape, 60, dtype=torch.float16)
            logits[..., 30:] = -math.inf
            return logits[:, :-1], batch["labels"][:, 1:]

    here = graph(Blind())
    scores = here.value(Scored("forget"))
    inside = scores.log_prob > -math.inf
    assert 0 < int(inside.sum()) < len(inside)
    np.testing.assert_allclose(scores.log_prob[inside], -math.log(30), rtol=1e-6)
    np.testing.assert_allclose(scores.mean, -math.log(30), rtol=1e-6)
    np.testing.assert_allclose(scores.variance, 0, atol=1e-6)
    assert math.isfinite(here.value(TruthRatio("forget")).value)
    assert here.value(MembershipAUC("min_k_plus_plus", "forget", "holdout")).value >= 0


def test_generated_text_is_the_models_own_and_its_prefix_is_no_part_of_it() -> None:
    """Answers stand in the order of the rows, whatever the order in which they were generated."""
    here = graph(prompts_per_batch=3)
    lm = causal_lm()
    for prefix in ("", "so it is"):
        prompts = [
            here.encoder.prompt(row["question"], begin=prefix) for row in here.sets["forget"].rows
        ]
        expected = [lm.generate([ids], max_new_tokens=SHORT)[0] for ids in prompts]
        assert (
            list(here.value(GeneratedText("forget", prefix=prefix, max_new_tokens=SHORT)).texts)
            == expected
        )
    some = here.value(GeneratedText("forget", max_new_tokens=SHORT, rows=(4, 1)))
    every = here.value(GeneratedText("forget", max_new_tokens=SHORT))
    assert list(some.texts) == [every.texts[4], every.texts[1]] and some.index.tolist() == [4, 1]
    recall, f1 = tofu.rouge_l(every.texts, here.sets["forget"].column("answer"))
    assert here.value(Rouge("forget", max_new_tokens=SHORT)).value == pytest.approx(
        recall.mean().item()
    )
    assert here.value(Rouge("forget", max_new_tokens=SHORT, measure="f1")).value == pytest.approx(
        f1.mean().item()
    )


def test_a_prefix_is_read_but_not_scored() -> None:
    here = graph()
    lm = causal_lm()
    scores = here.value(Scored("forget", prefix="so it is"))
    plain = here.value(Scored("forget"))
    assert scores.length.tolist() == plain.length.tolist()
    row = here.sets["forget"].rows[0]
    expected = by_hand(lm, row["question"], f"so it is {row['answer']}")[3:]
    np.testing.assert_allclose(
        scores.log_prob[: len(expected)], [token[0] for token in expected], atol=2e-6
    )


def test_gradient_norms_leave_the_model_as_it_was() -> None:
    """Every weight counts whatever is trained; weights, gradients and what is trainable stay;
    inference mode is no obstacle.
    """
    lm = causal_lm(part="lm_head")
    before = weights(lm)
    marks = [weight.requires_grad for weight in lm.parameters()]
    lm.train()
    with torch.inference_mode():
        found = graph(lm).value(GradientNorms("forget"))
    assert (
        lm.training
        and marks == [weight.requires_grad for weight in lm.parameters()]
        and any(marks)
        and not all(marks)
    )
    assert distance(before, weights(lm)) == 0 and all(
        weight.grad is None for weight in lm.parameters()
    )
    here = graph()
    other = causal_lm()
    for place in (0, 5):
        row = here.sets["forget"].rows[place]
        ids, labels = here.encoder.pair(row["question"], row["answer"])
        loss = other.network(torch.tensor([ids]), labels=torch.tensor([labels])).loss  # type: ignore[operator]
        norms = [
            g.double().norm().item() for g in torch.autograd.grad(loss, list(other.parameters()))
        ]
        assert found[place].item() == pytest.approx(sum(norms) / len(norms), rel=1e-5)


# ---- once ----------------------------------------------------------------------------------------


def test_every_pair_goes_through_the_model_once() -> None:
    """Fails when two metrics score or generate the same anew."""
    lm = watched()
    here = graph(lm)
    for node in every_metric():
        if "gradient_norm" not in node.name:
            here.value(node)
    sizes = {name: len(rows) for name, rows in here.sets.items()}
    pairs = (
        sizes["forget"] * (1 + 1 + 3)
        + sizes["forget"]
        + sizes["facts"] * (1 + 3)
        + sizes["retain"] * (1 + 1 + 3)
        + sizes["holdout"]
    )
    # forget: answer, paraphrase, wrong, and paraphrase to the reworded question
    assert lm.calls["rows"] == pairs
    assert lm.calls["prompts"] == sizes["forget"] + sizes["retain"] + sizes["facts"]
    before = dict(lm.calls)
    for node in [*every_metric(), Rouge("retain", max_new_tokens=SHORT, measure="f1")]:
        if "gradient_norm" not in node.name:
            here.value(node)
    assert dict(lm.calls) == before


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=0, max_size=50), budget=st.integers(1, 300))
def test_batches_cover_everything_within_the_budget(lengths: list[int], budget: int) -> None:
    found = batches_by_length(lengths, budget)
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) * max(lengths[place] for place in batch) <= budget or len(batch) == 1
    flat = [lengths[place] for batch in found for place in batch]
    assert flat == sorted(flat, reverse=True)


def test_another_model_is_another_graph_with_the_same_sequences(tmp_path: Path) -> None:
    """What an attack needs: an altered copy, measured by the same nodes, and the original
    untouched.
    """
    here = graph()
    first = here.value(Probability("forget")).value
    other = here.for_model(causal_lm(init_seed=3))
    assert other.value(Probability("forget")).value != first
    assert other.encoded(Scored("forget")) is here.encoded(Scored("forget"))
    assert here.value(Probability("forget")).value == first


def test_a_composed_model_is_measured_like_any_other() -> None:
    """ULD's logit difference: no network of its own."""
    both = LogitDifference(causal_lm(), causal_lm(init_seed=5), weight=-0.5, top=0.0)
    here = graph(both)
    ids, labels = here.encoded(Scored("forget")).pairs[0]
    part = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
    }
    logits = [lm.predict(part) for lm in (both.base, both.other)]
    log_p = (logits[0] - 0.5 * logits[1])[0].log_softmax(-1)
    expected = [
        log_p[place - 1, label].item() for place, label in enumerate(labels) if label != -100
    ]
    np.testing.assert_allclose(
        here.value(Scored("forget")).log_prob[: len(expected)], expected, atol=1e-5
    )
    for node in every_metric(SelfOracle()):
        assert math.isfinite(here.value(node).value)


# ---- interrupted ---------------------------------------------------------------------------------


def test_an_interrupted_evaluation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a finished batch is computed again, a value changes, or anything is computed for a
    model that is known.
    """
    monkeypatch.setattr(resumable, "FLUSH", 0.0)
    node = TruthRatio("forget")
    asked = GeneratedText("forget", max_new_tokens=SHORT)
    settings = {"tokens_per_batch": 60, "prompts_per_batch": 4}
    alone = graph(**settings)
    expected = alone.value(node)
    said = alone.value(asked)
    first = watched()
    first.stop_after = 9
    with pytest.raises(KeyboardInterrupt):
        graph(first, folder=tmp_path, **settings).value(node)
    done = first.calls["rows"]
    second = watched()
    here = graph(second, folder=tmp_path, **settings)
    found = here.value(node)
    total = 13 + 39
    assert second.calls["rows"] == total - done and done > 20
    assert torch.equal(found.items, expected.items)  # type: ignore[arg-type]
    assert here.value(asked).texts == said.texts and second.calls["prompts"] == 13
    third = watched()
    again = graph(third, folder=tmp_path, **settings)
    assert torch.equal(again.value(node).items, expected.items)  # type: ignore[arg-type]
    assert again.value(asked).texts == said.texts and not third.calls
    assert [path for path in tmp_path.rglob("*") if path.is_dir()] == [], (
        "parts are gone when all is there"
    )


@pytest.mark.parametrize("change", ["weights", "tokens", "precision", "damage"])
def test_what_was_kept_serves_the_same_question_alone(change: str, tmp_path: Path) -> None:
    """Fails when results of other weights, other texts or another precision are taken, or a damaged
    file ends the run.
    """
    graph(folder=tmp_path).value(Scored("forget"))
    lm = watched()
    if change == "weights":
        with torch.no_grad():
            next(lm.parameters())[0, 0] += 1e-3
    here = graph(lm, folder=tmp_path, **({"precision": "bf16"} if change == "precision" else {}))
    if change == "tokens":
        here.encoder.template = Plain(user="what ")
    if change == "damage":
        file = next(tmp_path.glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:-40])
    here.value(Scored("forget"))
    assert lm.calls["rows"] == 13


def test_texts_survive_a_file_of_tensors() -> None:
    texts = ["", "è una città\n", "🙂 ok", "plain"]
    assert (
        unpacked(packed(texts)) == texts
        and unpacked(packed(["", ""])) == ["", ""]
        and unpacked(packed([])) == []
    )


class FakeRanks(Ranks):
    """A rank whose partners' answers are given."""

    others: list[Any]

    def gathered(self, mine: Any) -> list[Any]:
        other = self.others.pop(0)
        return [mine, other] if self.rank == 0 else [other, mine]


def test_ranks_share_what_is_on_one_disk_and_what_is_not(tmp_path: Path) -> None:
    """Without a common file system, a rank does only what nobody has."""
    made: list[int] = []

    def work(number: int) -> dict[str, torch.Tensor]:
        made.append(number)
        return {"x": torch.tensor([float(number)])}

    ranks = FakeRanks(0, 2)
    object.__setattr__(
        ranks,
        "others",
        [
            [1, 4],
            {
                1: {"x": torch.tensor([1.0])},
                4: {"x": torch.tensor([4.0])},
                2: {"x": torch.tensor([2.0])},
            },
        ],
    )
    found = map_chunks(5, work, key="k", folder=tmp_path, ranks=ranks)
    assert made == [0, 3] and [piece["x"].item() for piece in found] == [0, 1, 2, 3, 4]
    made.clear()
    assert [piece["x"].item() for piece in map_chunks(5, work, key="k", folder=tmp_path)] == [
        0,
        1,
        2,
        3,
        4,
    ] and made == []


# ---- what a task lacks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        (Probability("nowhere"), r"no set 'nowhere'.*it has forget, retain"),
        (
            Probability("bare", "paraphrased_answer"),
            r"row 1 of the set bare has no 'paraphrased_answer'",
        ),
        (
            Rouge("bare", question="paraphrased_question"),
            r"row 1 of the set bare has no 'paraphrased_question'",
        ),
        (
            TruthRatio("bare", "answer"),
            r"perturbed_answer of row 0 of the set bare is not a list of texts",
        ),
        (Scored("listed"), r"answer of row 0 of the set listed is not one text"),
        (Probability("none"), r"the set none has no rows"),
    ],
)
def test_what_is_missing_is_named(node: Any, sentence: str) -> None:
    """Fails when a metric is left out or takes a default where a set or a column is missing."""
    here = graph()
    row = {"question": "what does ada make ?", "answer": "maps"}
    sets = {
        **here.sets,
        "bare": QuestionSet(
            "bare",
            [
                {
                    **row,
                    "paraphrased_answer": "maps",
                    "paraphrased_question": "what",
                    "perturbed_answer": "lamps",
                },
                {**row, "perturbed_answer": ["lamps"]},
            ],
            np.arange(2),
        ),
        "listed": QuestionSet("listed", [{**row, "answer": ["maps"]}], np.arange(1)),
        "none": QuestionSet("none", [], np.arange(0)),
    }
    with pytest.raises(InputError, match=sentence):
        Graph(causal_lm(), sets, here.encoder).value(node)


def test_names_tell_nodes_apart() -> None:
    """A log is keyed by them."""
    nodes = [
        *every_metric(SelfOracle()),
        Probability("retain"),
        Probability("forget", prefix="so"),
        ExtractionStrength("forget", floor=False),
        Rouge("forget", max_new_tokens=7),
        Rouge("forget", "paraphrased_answer"),
        TruthRatio("forget", question="paraphrased_question"),
        MembershipScore("min_k", "forget"),
        MembershipScore("min_k", "forget", 0.2),
        ModelUtility(("retain",)),
        ModelUtility(("facts",)),
    ]
    names = [node.name for node in nodes]
    assert len(set(names)) == len(names)
    assert (
        TruthRatio("forget").name == "truth_ratio/forget"
        and ForgetQuality("forget", SelfOracle()).name == "forget_quality/forget"
    )


# ---- the oracle's log ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of another model."""
    place = tmp_path_factory.mktemp("oracle")
    here = graph(causal_lm(init_seed=9))
    for node in every_metric(SelfOracle()):
        here.value(node)
    save_log(place, here)
    return place


def test_a_log_answers_like_the_model_that_wrote_it(log_folder: Path) -> None:
    """Fails when items come back in another order or another metric's, or rounded."""
    here = graph()
    model = OracleModel(graph(causal_lm(init_seed=9)))
    log = OracleFile(log_folder)
    for node in every_metric():
        theirs = log.measure(node, here)
        direct = model.measure(node, here)
        assert theirs.value == direct.value, node.name
        if direct.items is not None:
            assert torch.equal(theirs.items, direct.items) and torch.equal(
                theirs.index, direct.index
            )  # type: ignore[arg-type]
    for by_file, by_model in zip(every_metric(log), every_metric(model), strict=True):
        assert here.value(by_file).value == here.value(by_model).value
    quality = here.value(ForgetQuality("forget", log))
    mine = here.value(TruthRatio("forget")).items
    theirs = model.measure(TruthRatio("forget"), here).items
    assert quality.value == tofu.forget_quality(mine, theirs).p  # type: ignore[arg-type]
    assert quality.detail["oracle"] == f"weights {model.graph.weights}" == log.label(here)


def test_the_oracle_agrees_with_itself(log_folder: Path) -> None:
    for log in (SelfOracle(), OracleFile(log_folder)):
        here = graph(causal_lm(init_seed=9))
        assert here.value(ForgetQuality("forget", log)).value == 1
        assert here.value(PrivLeak("forget", "holdout", log)).value == 0
        assert here.value(PrivacyScore("forget", "holdout", log)).value == 1
        assert here.value(
            MembershipAUC("reference", "forget", "holdout", log=log)
        ).value == pytest.approx(0.5, abs=0.01)


def test_a_log_gathers_what_several_tests_measured(tmp_path: Path) -> None:
    """Of one model: another model's numbers are never mixed in."""
    first = graph()
    second = graph()
    third = graph(causal_lm(init_seed=2))
    for here, node in (
        (first, Loss("forget")),
        (second, Probability("retain")),
        (third, Loss("facts")),
    ):
        here.value(node)
    save_log(tmp_path, first)
    save_log(tmp_path, second)
    assert set(json.loads((tmp_path / "items.json").read_text())["values"]) == {
        "loss/forget",
        "probability/retain",
    }
    save_log(tmp_path, third)
    assert set(json.loads((tmp_path / "items.json").read_text())["values"]) == {"loss/facts"}


def altered(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Path], Path]:
    def write(source: Path, place: Path) -> Path:
        raw = json.loads((source / "items.json").read_text())
        changed = change(raw)
        file = place / "log.json"
        file.write_text(json.dumps(raw if changed is None else changed))
        return file

    return write


def without_items(raw: dict[str, Any]) -> None:
    items = raw["items"]["truth_ratio/forget"]
    for index in list(items)[:3]:
        del items[index]


def other_items(raw: dict[str, Any]) -> None:
    items = raw["items"]["truth_ratio/forget"]
    raw["items"]["truth_ratio/forget"] = {
        str(int(index) + 100): value for index, value in items.items()
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (altered(without_items), r"of 10 items, but this run of 13"),
        (altered(other_items), r"is for other items \(truth_ratio/forget of item 100"),
        (
            altered(lambda raw: raw["tokens"].update({"truth_ratio/forget": "0"})),
            r"of other texts or tokens",
        ),
        (
            altered(lambda raw: raw["values"].pop("truth_ratio/forget") and None),
            r"has no truth_ratio/forget; test that run",
        ),
        (altered(lambda raw: {"format": 1, "values": []}), r"is damaged"),
        (altered(lambda raw: {"some": "file"}), r"is not a log of items"),
        (
            altered(lambda raw: {"forget_truth_ratio": {"value_by_index": {"0": {"score": 1.0}}}}),
            r"has 1 truth ratios, but the set forget",
        ),
        (
            altered(lambda raw: {"forget_truth_ratio": {"agg_value": 1}}),
            r"damaged, or of a version",
        ),
        (lambda source, place: place / "missing.json", r"there is no file"),
        (lambda source, place: place, r"has no items.json; test that run"),
    ],
)
def test_an_oracle_for_something_else_is_refused(
    change: Any, sentence: str, log_folder: Path, tmp_path: Path
) -> None:
    """One sentence each; never a number."""
    file = change(log_folder, tmp_path)
    with pytest.raises(InputError, match=sentence):
        graph().value(ForgetQuality("forget", OracleFile(file)))


def test_another_template_makes_another_log(log_folder: Path) -> None:
    """The same rows, but not the same tokens."""
    task = people()
    here = Graph(causal_lm(), task.sets, Encoder(tokenizer(), Plain(user="what "), 40))
    with pytest.raises(InputError, match="another tokenizer, template"):
        here.value(ForgetQuality("forget", OracleFile(log_folder)))


def test_logs_of_others(tmp_path: Path) -> None:
    """OpenUnlearning's form, and that of TOFU's own code, whose losses give the same ratios."""
    theirs = torch.linspace(0.2, 2.0, 13, dtype=torch.float64)
    right = torch.full((13,), 1.0)
    wrong = 1.0 - theirs.log()
    forms = {
        "TOFU_EVAL.json": {
            "forget_truth_ratio": {
                "agg_value": 0.6,
                "value_by_index": {
                    str(place): {"score": value}
                    for place, value in reversed(list(enumerate(theirs.tolist())))
                },
            },
            "mia_min_k": {"agg_value": 0.4, "auc": 0.4},
        },
        "eval_log_aggregated.json": {
            "eval_log_forget": {
                "avg_paraphrased_loss": {
                    str(place): value for place, value in enumerate(right.tolist())
                },
                "average_perturb_loss": {
                    str(place): [value, value] for place, value in enumerate(wrong.tolist())
                },
            }
        },
    }
    here = graph()
    expected = tofu.forget_quality(here.value(TruthRatio("forget")).items, theirs)  # type: ignore[arg-type]
    for name, content in forms.items():
        (tmp_path / name).write_text(json.dumps(content))
        log = OracleFile(tmp_path / name)
        found = here.value(ForgetQuality("forget", log))
        assert (
            found.value == pytest.approx(expected.p)
            and "tokens unchecked" in found.detail["oracle"]
        )
    leak = here.value(PrivLeak("forget", "holdout", OracleFile(tmp_path / "TOFU_EVAL.json")))
    auc = here.value(MembershipAUC("min_k", "forget", "holdout")).value
    assert leak.value == pytest.approx(memorisation.privleak(auc, 0.4))
    with pytest.raises(InputError, match="has no auc/loss"):
        here.value(PrivacyScore("forget", "holdout", OracleFile(tmp_path / "TOFU_EVAL.json")))


@pytest.mark.data
def test_the_golden_logs_are_read_and_refused_for_other_lengths(tmp_path: Path) -> None:
    """Needs `../shared/data/llm/tofu_golden` beside the repository."""
    if not GOLDEN.is_file():
        pytest.skip(f"{GOLDEN} is not here")
    (tmp_path / "log.json").write_text(json.dumps(json.loads(GOLDEN.read_text())["retain99"]))
    with pytest.raises(InputError, match="has 40 truth ratios, but the set forget has 13 rows"):
        graph().value(ForgetQuality("forget", OracleFile(tmp_path / "log.json")))
    task = people()
    rows = [task.sets["retain"].rows[place % 20] for place in range(40)]
    here = Graph(causal_lm(), {"forget": QuestionSet("forget", rows, np.arange(40))}, task.encoder)
    assert 0 < here.value(ForgetQuality("forget", OracleFile(tmp_path / "log.json"))).value < 1


def test_attacks_that_need_something_say_so() -> None:
    with pytest.raises(InputError, match="give the oracle"):
        MembershipScore("reference", "forget")
    with pytest.raises(InputError, match="no membership attack 'max'"):
        MembershipScore("max", "forget")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tokens_per_batch is 0"):
        graph(tokens_per_batch=0)
