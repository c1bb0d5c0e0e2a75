"""Judge from CLIP as a zero-shot classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mu.evaluation.images.clip import OpenCLIP
from mu.evaluation.images.judges import Judge
from mu.utils.errors import InputError


class CLIPZeroShot(Judge):
    """Judge that applies CLIP as a zero-shot classifier.

    P(label) = softmax over labels of scale · cos(image, text of the label).

    Args:
        labels: names of the classes, at least two.
        clip: the model; ViT-B/32 of OpenAI when None.
        templates: prompts with `{}` for the label; the embeddings of several are averaged.
        name: name for reports.
        top: a label is recognised if it is among so many most probable ones.
        threshold: a label is recognised from this probability on, in place of `top`.
        synonyms: other words for labels, as prompts use them.
        groups: concepts that consist of several labels.
        confidence: probability of the most probable label from which on the judge sees anything.
            The 0.5 of the shipped study of artists was not measured on CLIP's weights;
            `judge/noise` of a test says how many images of noise pass it.
        reject: labels that stand for nothing to be seen; `none`, if there is one, when None.

    Raises:
        InputError: for fewer than two labels, or a template without `{}`.
    """

    def __init__(
        self,
        labels: list[str],
        clip: OpenCLIP | None = None,
        templates: list[str] | None = None,
        name: str | None = None,
        top: int = 1,
        threshold: float | None = None,
        synonyms: dict[str, list[str]] | None = None,
        groups: dict[str, list[str]] | None = None,
        confidence: float | None = None,
        reject: list[str] | None = None,
    ) -> None:
        self.clip = clip or OpenCLIP()
        self.templates = ["a photo of a {}"] if templates is None else list(templates)
        if len(labels) < 2:
            raise InputError("a zero-shot judge compares labels, so it needs at least two.")
        if not self.templates or not all("{}" in template for template in self.templates):
            raise InputError("each template of a zero-shot judge needs {} in place of the label.")
        super().__init__(
            name or f"CLIP {self.clip.model} {self.clip.pretrained}",
            threshold,
            top,
            synonyms,
            groups,
            confidence,
            reject,
        )
        self._labels = tuple(labels)
        self._texts = torch.empty(0)

    @property
    def labels(self) -> tuple[str, ...]:
        return self._labels

    @property
    def version(self) -> str:
        """Hash of CLIP's weights."""
        return self.clip.version

    def load(self) -> None:
        """Read the weights."""
        super().load()
        _ = self.clip.network

    @torch.no_grad()
    def judge(self, images: Tensor) -> Tensor:
        """Softmax of the scaled cosine similarities."""
        features = self.clip.images(images)
        if not len(self._texts):
            embeddings = [
                self.clip.texts([template.format(label) for template in self.templates]).mean(0)
                for label in self._labels
            ]
            self._texts = torch.nn.functional.normalize(torch.stack(embeddings), dim=-1)
        return (self.clip.scale * features @ self._texts.to(features.device).T).softmax(1)

    def detail(self) -> dict[str, Any]:
        return {**super().detail(), "templates": "; ".join(self.templates)}
