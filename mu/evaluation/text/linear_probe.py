"""Linear probe: regularised logistic regression on hidden states, by layer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mu.utils import rng
from mu.utils.errors import InputError, UndefinedError


def training_half(index: Tensor, seed: int) -> Tensor:
    """Mask of the questions `[N]` that a probe is trained on: the smaller half, bool `[N]`.

    Drawn by the stable indices of the questions.

    Raises:
        InputError: for fewer than two questions.
    """
    if len(index) < 2:
        raise InputError(
            f"a linear probe is trained on half of the questions; {len(index)} is too few."
        )
    order = rng.uniform(seed, index, 0, "linear-probe", 1)[:, 0].argsort(stable=True)
    learns = torch.zeros(len(index), dtype=torch.bool)
    learns[order[: len(index) // 2]] = True
    return learns


def linear_probe(features: Tensor, owner: Tensor, learns: Tensor, strength: float = 0.01) -> Tensor:
    """Test accuracy of a linear probe by layer: `[layers]` in [0, 1], float64.

    Each feature is divided by its root mean square over the training pairs; so is their sum, the
    logit lens, which is then multiplied by √D, so that the penalty on its weight equals that on
    equal weights of all D. Both orders of the two answers are training examples. A question counts
    once, however many wrong answers it has; a tie counts half.

    Args:
        features: `[P, layers, D]`, features of the right answer minus those of the wrong one.
        owner: `[P]` int64 in [0, N), the question of each pair.
        learns: `[N]` bool, the training questions.
        strength: C of scikit-learn.
    """
    from sklearn.linear_model import LogisticRegression

    training = learns[owner].numpy()
    accuracies = []
    for layer in range(features.shape[1]):
        values = features[:, layer].double().numpy()
        if not np.isfinite(values).all():
            raise UndefinedError(
                f"the output of layer {layer} is not finite, so no probe can be trained on it."
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
        accuracies.append(
            mean_by_row(hits[:, None], owner[~learns[owner]], len(learns))[~learns].mean()
        )
    return torch.stack(accuracies)


def _scaled(values: np.ndarray, training: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.square(values[training]).mean(0))
    return values / np.where(size > 0, size, 1.0)


def mean_by_row(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Mean of the values `[n, K]` of each row, `[rows, K]`; 0 for a row without values.

    >>> mean_by_row(torch.tensor([[1.0], [3.0]]), torch.tensor([1, 1]), rows=2).tolist()
    [[0.0], [2.0]]
    """
    summed = torch.zeros(rows, values.shape[1], dtype=torch.float64).index_add(
        0, row, values.double()
    )
    return summed / torch.bincount(row, minlength=rows).clamp_min(1)[:, None]
