"""Judges: classifiers that decide whether an image shows a concept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mu.data.concepts import find_mentions, folded
from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible


class Judge(Reconstructible, ABC):
    """Base of image classifiers that decide whether an image shows a concept.

    A subclass supplies `labels`, `version` and `judge`. A result depends on the judge's weights and
    on its threshold, so `detail` reports both with each result.

    Args:
        name: name for reports.
        threshold: a label is recognised from this probability on, in (0, 1]; None takes the
            `top` most probable labels instead.
        top: a label is recognised if it is among so many most probable ones, at least 1.
        synonyms: other words for a label, as prompts use them.
        groups: concepts that consist of several labels, any of which counts (`nudity`).
        confidence: smallest probability of the most probable label, in (0, 1], with which the judge
            sees anything in an image; None accepts every image, or takes the threshold. It tells
            images that show something else from those that show nothing, and does not change
            whether a concept is recognised.
        reject: labels that stand for nothing to be seen, which no prompt asks for; `none`, where
            the judge has such a label, when None.

    Attributes:
        labels: K names of the classes.
        version: identifier of the weights.
        multilabel: whether an image may show several labels at once, so that the probabilities do
            not add up to 1.

    Raises:
        InputError: when the threshold, the confidence or `top` is out of range.

    Example, a judge of bright images:

        class Brightness(Judge):
            labels = ("dark", "bright")
            version = "1"

            def judge(self, images):
                bright = images.mean((1, 2, 3))
                return torch.stack([1 - bright, bright], 1)

        Brightness("brightness").recognises(torch.ones(1, 3, 8, 8), "bright")  # tensor([True])
    """

    multilabel: bool = False

    def __init__(
        self,
        name: str,
        threshold: float | None = None,
        top: int = 1,
        synonyms: Mapping[str, Sequence[str]] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        confidence: float | None = None,
        reject: Sequence[str] | None = None,
    ) -> None:
        for term, value in (("threshold", threshold), ("confidence", confidence)):
            if value is not None and not 0 < value <= 1:
                raise InputError(
                    f"the {term} of the judge {name} is {value}; a probability lies in (0, 1]."
                )
        if top < 1:
            raise InputError(
                f"the judge {name} recognises a label among the top {top}; give at least 1."
            )
        self.name = name
        self.threshold = threshold
        self.top = top
        self.synonyms: dict[str, Sequence[str]] = dict(synonyms or {})
        self.groups: dict[str, Sequence[str]] = dict(groups or {})
        self.confidence = confidence
        self.reject: tuple[str, ...] = ("none",) if reject is None else tuple(reject)
        self._label_of: dict[str, str] | None = None

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Names of the K classes."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Identifier of the weights, for reports."""

    @abstractmethod
    def judge(self, images: Tensor) -> Tensor:
        """Probabilities `[B, K]` float32 of images `[B, C, H, W]` in [0, 1], on their device."""

    def recognises(self, images: Tensor, concept: str) -> Tensor:
        """Whether each image shows the concept, `[B]` bool."""
        return self.verdict(self.judge(images), concept)

    def verdict(self, probabilities: Tensor, concept: str) -> Tensor:
        """Whether the probabilities `[B, K]` reach the threshold for the concept, `[B]` bool."""
        indices = torch.tensor(self.label_indices(concept), device=probabilities.device)
        if self.threshold is not None:
            return (probabilities[:, indices] >= self.threshold).any(1)
        best = probabilities.topk(min(self.top, probabilities.shape[1]), 1).indices
        return torch.isin(best, indices).any(1)

    def sees(self, probabilities: Tensor) -> Tensor:
        """Whether the judge sees any of its labels, for probabilities `[B, K]`, `[B]` bool.

        A judge of several labels at once sees one that reaches its threshold (0.5 without one).
        Another judge sees its most probable label, unless that is one of `reject` or lies below the
        confidence.
        """
        if self.multilabel:
            return (probabilities >= (self.threshold or 0.5)).any(1)
        top, best = probabilities.max(1)
        rejected = torch.tensor(self._rejected(), dtype=torch.int64, device=best.device)
        return (top >= (self.confidence or self.threshold or 0.0)) & ~torch.isin(best, rejected)

    @property
    def can_reject(self) -> bool:
        """Whether the judge can say that an image shows none of its labels."""
        bounds = (self.confidence, self.threshold)
        return self.multilabel or bounds != (None, None) or bool(self._rejected())

    @property
    def class_labels(self) -> tuple[str, ...]:
        """Labels without those that stand for nothing to be seen."""
        return tuple(label for label in self.labels if label not in self.reject)

    def _rejected(self) -> list[int]:
        return [index for index, label in enumerate(self.labels) if label in self.reject]

    def label_indices(self, concept: str) -> list[int]:
        """Indices of the labels that make up a concept.

        Raises:
            InputError: when no label belongs to the concept.
        """
        names = {folded(word) for word in self.groups.get(concept, [concept])}
        label_of = {
            folded(word): folded(label) for label, words in self.synonyms.items() for word in words
        }
        names = {label_of.get(word, word) for word in names}
        indices = [index for index, label in enumerate(self.labels) if folded(label) in names]
        if not indices:
            raise InputError(
                f"the judge {self.name} has no label {concept!r}; its labels are "
                f"{_shortened(self.class_labels)}."
            )
        return indices

    def labels_in(self, text: str) -> list[str]:
        """Distinct labels that a text contains, by name or synonym.

        Whole words are matched, upper and lower case alike.
        """
        if self._label_of is None:
            self._label_of = {
                folded(word): label for label, words in self.synonyms.items() for word in words
            } | {folded(label): label for label in self.class_labels}
        # the longest name counts, so that "French horn" does not match "horn"
        mentions = find_mentions(text.replace("_", " "), tuple(self._label_of))
        return list(dict.fromkeys(self._label_of[mention.name] for mention in mentions))

    def load(self) -> None:
        """Read the weights, so that missing files are reported before images are drawn.

        Raises:
            InputError: when something is missing, or a label to reject is not among the labels.
        """
        labels = self.labels
        unknown = [label for label in self.reject if label not in labels]
        if unknown and self.reject != ("none",):
            raise InputError(
                f"the judge {self.name} has no label {unknown[0]!r} to reject; its labels are "
                f"{_shortened(labels)}."
            )

    def detail(self) -> dict[str, Any]:
        """Name, version and threshold, reported beside each result of the judge."""
        rule: dict[str, Any] = (
            {"threshold": self.threshold} if self.threshold is not None else {"top": self.top}
        )
        if self.confidence is not None:
            rule["confidence"] = self.confidence
        if self._rejected():
            rule["reject"] = ", ".join(self.labels[index] for index in self._rejected())
        return {"judge": self.name, "version": self.version, **rule}


def _shortened(names: Sequence[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (
        f" and {len(names) - limit} more" if len(names) > limit else ""
    )
