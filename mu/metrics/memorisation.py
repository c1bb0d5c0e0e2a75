"""Memorisation and privacy of a language model, on numbers of its labelled tokens.

Tensors of tokens are `[N, T]` with a `mask` `[N, T]` (True = a token of that item; rows may begin
anywhere and have any lengths). The reference (OpenUnlearning, "OpenUnlearning: accelerating LLM
unlearning via unified benchmarking of methods and metrics", 2025, arXiv 2506.12618, and its code)
leaves the token that ends a sequence out of everything but average losses; so does whoever makes
the mask.

Scores of membership are all large for what looks unseen, like a loss. Everything is computed in
float64.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from mu.metrics.membership import loss_threshold_auc
from mu.metrics.tofu import harmonic_mean
from mu.utils.errors import InputError, RunError

MIN_VARIANCE = 1e-6
"""Where min-k++ divides by a token's standard deviation."""

# ---------------------------------------------------------------- what is known by heart


def exact_memorisation(hits: Tensor, mask: Tensor) -> Tensor:
    """Share of tokens that are the model's first choice, given all tokens before (teacher forced),
    `[N]` in [0, 1]; 0 for no token.

    Source: Tirumala et al., "Memorization without overfitting", NeurIPS 2022, arXiv 2205.10770;
    OpenUnlearning `exact_memorization`.

    Args:
        hits: `[N, T]` bool, whether the token is the argmax.
        mask: `[N, T]` bool.
    """
    hits, mask = _tokens(hits, mask)
    return (hits & mask).sum(1) / mask.sum(1).clamp_min(1).to(torch.float64)


def extraction_strength(hits: Tensor, mask: Tensor, floor: bool = True) -> Tensor:
    """1 - k/N, k = the smallest prefix after which every token is the model's first choice (teacher
    forced), `[N]` in [0, 1].

    Source: Carlini et al., "Extracting training data from large language models", USENIX Security
    2021, arXiv 2012.07805; OpenUnlearning `extraction_strength`. Quirk: the released loop ends at k
    = N - 1, so an item whose last token is missed gets 1/N like one of which the last token alone
    is right, and an item of one token always gets 1. The default does the same, because published
    numbers do.

    Args:
        hits: `[N, T]` bool, whether the token is the argmax.
        mask: `[N, T]` bool.
        floor: False gives 0 to an item whose last token is missed.

    Returns:
        0 for an item without a token.
    """
    hits, mask = _tokens(hits, mask)
    count = mask.sum(1)
    missed_later = ((~hits & mask).flip(1).cumsum(1) > 0).flip(1)
    suffix = (mask & ~missed_later).sum(1)
    if floor:
        suffix = suffix.clamp_min(1)
    return torch.where(count > 0, suffix / count.clamp_min(1).to(torch.float64), 0.0)


# ---------------------------------------------------------------- scores of membership


def min_k(log_prob: Tensor, mask: Tensor, share: float = 0.4) -> Tensor:
    """-mean of the lowest max(1, floor(share N)) log-probabilities, `[N]`, in nats.

    Source: Shi et al., "Detecting pretraining data from large language models", ICLR 2024, arXiv
    2310.16789. Default: 0.4 (MUSE, OpenUnlearning; the paper's is 0.2).

    Args:
        log_prob: `[N, T]` of the tokens.
        mask: `[N, T]` bool; every row needs a token.
        share: of the tokens, in (0, 1].
    """
    return _lowest(log_prob, mask, share)


def min_k_plus_plus(
    log_prob: Tensor, mean: Tensor, variance: Tensor, mask: Tensor, share: float = 0.4
) -> Tensor:
    """As `min_k`, of z = (log p - μ) / √max(σ², 1e-6), where μ = Σ p log p and σ² = Σ p (log p -
    μ)² over the vocabulary; `[N]`.

    Source: Zhang et al., "Min-K%++", ICLR 2025, arXiv 2404.02936.

    Args:
        log_prob: `[N, T]` of the tokens.
        mean: `[N, T]`, μ at each token.
        variance: `[N, T]`, σ² at each token.
        mask: `[N, T]` bool; every row needs a token.
        share: of the tokens, in (0, 1].
    """
    z = (log_prob.to(torch.float64) - mean.to(torch.float64)) / variance.to(
        torch.float64
    ).clamp_min(MIN_VARIANCE).sqrt()
    return _lowest(z, mask, share)


def zlib_score(nll: Tensor, texts: Sequence[str]) -> Tensor:
    """A / bytes of the text compressed by zlib, `[N]`: a loss, corrected for texts that are easy
    anyway (Carlini et al., 2021).

    Args:
        nll: average losses `[N]`.
        texts: the answers, N strings.
    """
    if len(nll) != len(texts):
        raise InputError(
            f"the zlib score needs a text for each of {len(nll)} losses, not {len(texts)}."
        )
    return nll.to(torch.float64) / torch.tensor(
        [len(zlib.compress(text.encode("utf-8"))) for text in texts], device=nll.device
    )


def reference_score(nll: Tensor, reference: Tensor) -> Tensor:
    """A - A of a reference model that never saw the forget set (the oracle), `[N]`, in nats.

    Args:
        nll: average losses `[N]`.
        reference: the reference model's on the same items, `[N]`.
    """
    if nll.shape != reference.shape:
        raise InputError(
            f"the reference attack compares losses of the same items, but there are {len(nll)} "
            f"and {len(reference)}."
        )
    return nll.to(torch.float64) - reference.to(torch.float64)


def gradient_norm(gradients: Iterable[Tensor | None], p: float = 2.0) -> float:
    """Mean over weight tensors of the p-norm of one item's gradient; tensors without a gradient are
    left out.

    Source: OpenUnlearning `mia_gradnorm`, which takes it in train mode; the suites here take it in
    eval mode, like everything else. The score of an item is this number for its average loss.

    Args:
        gradients: of one item, a tensor for each weight.
        p: of the norm.
    """
    norms = [
        torch.linalg.vector_norm(gradient.detach().to(torch.float64), p).item()
        for gradient in gradients
        if gradient is not None
    ]
    if not norms:
        raise InputError("the gradient-norm attack needs a weight with a gradient; unfreeze some.")
    return sum(norms) / len(norms)


def membership_auc(forget: Tensor, holdout: Tensor) -> float:
    """Share of pairs in which the forget item looks more like a member than the holdout item, ties
    half: in [0, 1].

    1 = memorised; the goal is the oracle's value (about 0.5); below it the forget set stands out as
    unusually badly known.

    Args:
        forget: scores that are large for non-members, `[F]`.
        holdout: the same of items that nobody trained on, `[H]`.
    """
    return loss_threshold_auc(forget, holdout)


def privleak(auc: float, oracle_auc: float = 0.5) -> float:
    """100 ((1 - AUC) - (1 - AUC of the oracle)) / (1 - AUC of the oracle), in percent: 0 = as the
    oracle.

    Negative, down to -100 = under-unlearned; positive without bound = over-unlearned. MUSE (Shi et
    al., 2024, arXiv 2407.06460) states the AUC the other way round, which the 1 - undoes. Defined
    on Min-40 %.

    Args:
        auc: as `membership_auc` states it.
        oracle_auc: the oracle's; 0.5 is what is taken where there is none.
    """
    return _relative(1 - auc, 1 - oracle_auc)


def rel_diff(auc: float, oracle_auc: float = 0.5) -> float:
    """100 (AUC - AUC of the oracle) / AUC of the oracle, in percent; 0 = as the oracle, positive =
    under-unlearned.
    """
    return _relative(auc, oracle_auc)


def _relative(here: float, there: float) -> float:
    if there <= 0:
        raise RunError(
            "the oracle's membership AUC lies at the end of the scale, so no relative difference "
            "to it exists."
        )
    return 100 * (here - there) / there


# ---------------------------------------------------------------- aggregates


def memorisation_score(memorised: Mapping[str, float] | Sequence[float]) -> float:
    """Harmonic mean of 1 - x over extraction strength, exact memorisation, paraphrased probability
    and truth probability.

    In [0, 1], higher = less is memorised (OpenUnlearning, section on aggregates).

    Args:
        memorised: the four, or others that are 1 where everything is known by heart, each in [0,
            1].
    """
    return harmonic_mean([1 - value for value in _shares(memorised)])


def membership_closeness(auc: float, oracle_auc: float) -> float:
    """1 - |AUC - AUC of the oracle| / max(AUC of the oracle, 1 - AUC of the oracle), in [0, 1]: 1 =
    as the oracle.

    OpenUnlearning's table scores each attack by "closeness to the retain model", but neither paper
    nor code states the transform. Ours divides by the largest distance that an AUC can have, so
    that 0 is the worst that there is: an original with an AUC of 0.95 gets 0.1 beside an oracle of
    0.5, where 1 - |difference| would give it 0.55 (the paper's table has 0.10 for the original).
    """
    for value in (auc, oracle_auc):
        if not 0 <= value <= 1:
            raise InputError(f"an area under a curve lies in [0, 1], not at {value}.")
    return 1 - abs(auc - oracle_auc) / max(oracle_auc, 1 - oracle_auc)


def privacy_score(aucs: Mapping[str, float], oracle_aucs: Mapping[str, float]) -> float:
    """Harmonic mean over attacks of `membership_closeness`, in [0, 1], 1 = no attack tells the
    model from the oracle.

    Args:
        aucs: by attack; the paper takes loss, zlib, min-k and min-k++.
        oracle_aucs: of the oracle, by the same attacks.
    """
    if set(aucs) != set(oracle_aucs):
        raise InputError(
            f"the privacy score compares the attacks {', '.join(sorted(aucs))} with "
            f"{', '.join(sorted(oracle_aucs))}; give both of each."
        )
    return harmonic_mean(
        [membership_closeness(auc, oracle_aucs[name]) for name, auc in aucs.items()]
    )


def utility_score(utility: float, original: float | None = None) -> float:
    """Model utility as a share of the original's, at most 1.

    OpenUnlearning's has the fluency beside it, by a classifier of gibberish, and seems to be scaled
    so that the original has 1. Here it is the model utility alone.

    Args:
        utility: model utility in [0, 1].
        original: of the model before unlearning; None leaves it unscaled.
    """
    if original is not None and original <= 0:
        raise RunError(
            "the original's model utility is 0, so nothing can be stated as a share of it."
        )
    return utility if original is None else min(1.0, utility / original)


def overall_score(memorisation: float, privacy: float, utility: float) -> float:
    """Harmonic mean of the three scores, in [0, 1] (confirmed by the maintainers of
    OpenUnlearning).
    """
    return harmonic_mean([memorisation, privacy, utility])


# ---------------------------------------------------------------- checks


def _shares(values: Mapping[str, float] | Sequence[float]) -> list[float]:
    found = list(values.values()) if isinstance(values, Mapping) else list(values)
    if any(not 0 <= value <= 1 for value in found):
        raise InputError(
            f"a share lies in [0, 1], but {next(v for v in found if not 0 <= v <= 1)} was given."
        )
    return found


def _tokens(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    if values.ndim != 2 or values.shape != mask.shape:
        raise InputError(
            f"tokens and their mask are [N, T], but have the shapes {list(values.shape)} and "
            f"{list(mask.shape)}."
        )
    return values.to(torch.bool), mask.to(torch.bool)


def _lowest(values: Tensor, mask: Tensor, share: float) -> Tensor:
    """-mean of the lowest share of each row."""
    if not 0 < share <= 1:
        raise InputError(f"the share of the tokens is {share}; it lies in (0, 1].")
    if values.ndim != 2 or values.shape != mask.shape:
        raise InputError(
            f"tokens and their mask are [N, T], but have the shapes {list(values.shape)} and "
            f"{list(mask.shape)}."
        )
    mask = mask.to(torch.bool)
    count = mask.sum(1)
    if bool((count == 0).any()):
        raise InputError(f"item {int((count == 0).nonzero()[0])} has no token to score.")
    if bool((values.isnan() & mask).any()):
        raise RunError(
            "a log-probability is NaN: the model that was tested has diverged, so nothing can be "
            "measured on it."
        )
    # as the references: share and count are multiplied in floating point and cut
    taken = torch.tensor(
        [max(1, math.floor(share * size)) for size in count.tolist()], device=values.device
    )
    ordered = values.detach().to(torch.float64).masked_fill(~mask, math.inf).sort(1).values
    inside = torch.arange(values.shape[1], device=values.device) < taken[:, None]
    return -torch.where(inside, ordered, 0.0).sum(1) / taken
