"""Shapes tasks: rendered shapes with captions, text-to-image data without a download.

An image is a pure function of its index: a shape in a colour on a background, with jitter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mu.data.datamodule import UnlearningDataModule
from mu.data.split import Split
from mu.utils.errors import InputError
from mu.utils.rng import integers, uniform
from tasks.prompts import PromptData, concept_anchors
from tasks.shapes.junk import JunkImages
from tasks.shapes.render import JITTER, render
from tasks.shapes.words import (
    ATTRIBUTES,
    DRAWS,
    NAMED,
    WORDS,
    Attribute,
    attribute_of,
    caption,
    plain_caption,
)

NAME = "shapes-v1"
_SEED = 20_240
# indices of one split seed, with separate ranges for validation and test images
_WORLD = 1_000_000
_FIRST = {"train": 0, "validation": 600_000, "test": 800_000}
NAMES: dict[Attribute, tuple[str, ...]] = {name: tuple(values) for name, values in WORDS.items()}


def attributes(indices: np.ndarray) -> dict[str, Tensor]:
    """`shape`, `colour` and `background` of images: int64 `[N]`, indices in `NAMES`."""
    index = torch.tensor(indices, dtype=torch.int64)
    return {
        name: integers(_SEED, index, 0, f"shapes/{name}", len(NAMES[name])) for name in ATTRIBUTES
    }


def pictures(indices: np.ndarray) -> dict[str, Tensor]:
    """Images uint8 `[N, 3, 32, 32]` as `image`, and their attributes."""
    drawn = attributes(indices)
    jitter = uniform(_SEED, torch.tensor(indices, dtype=torch.int64), 0, "shapes/jitter", JITTER)
    return {"image": render(drawn["shape"], drawn["colour"], drawn["background"], jitter), **drawn}


def names_of(drawn: dict[str, Tensor]) -> list[dict[Attribute, str]]:
    """Names of the attributes of each image, by the usual words."""
    rows = {name: drawn[name].tolist() for name in ATTRIBUTES}
    return [
        {name: NAMES[name][rows[name][row]] for name in ATTRIBUTES}
        for row in range(len(drawn["shape"]))
    ]


@dataclass(frozen=True)
class Captions:
    """Augmentation by a new caption of each sample on every visit."""

    def __call__(self, part: dict[str, Any], seed: int) -> dict[str, Any]:
        """Batch with a new `prompt`, keyed by (seed, index, visit)."""
        draws = uniform(seed, part["index"], part["visit"], "shapes/caption", DRAWS).tolist()
        return {
            **part,
            "prompt": [
                caption(names, row) for names, row in zip(names_of(part), draws, strict=True)
            ],
        }


class Shapes(UnlearningDataModule):
    """Rendered shapes with captions, to train a text-to-image model.

    Samples have `image`, `prompt`, `shape`, `colour`, `background` and `label` (of the attribute of
    the concept). The split has the parts `forget` (training images that show the concept), `retain`
    (the other training images), `validation` and `test`.

    Args:
        concept: a shape, a colour or a background, or a synonym; or a list of several of one
            attribute.
        train_size: training images, from 1 to 600,000.
        validation_size: images held out for searches, from 1 to 200,000.
        test_size: images held out for tests, from 1 to 200,000.
        split_seed: chooses the images; different seeds have no image in common.
        batch_size: global batch size in fit.
        eval_batch_size: batch size of one rank in validate and test.
        junk: share of training images, in [0, 1), that are junk on each visit, with a label of
            their own, the last (see `JunkImages`), to train a judge; above 0, captions do not vary.
        **kwargs: see UnlearningDataModule.

    Example: `Shapes("circle", train_size=1000)`.
    """

    def __init__(
        self,
        concept: list[str] | str = "circle",
        train_size: int = 16_000,
        validation_size: int = 200,
        test_size: int = 500,
        split_seed: int = 0,
        batch_size: int = 32,
        eval_batch_size: int = 250,
        junk: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, **kwargs)
        if not 0 <= junk < 1:
            raise InputError(f"junk is {junk}; it is a share in [0, 1).")
        self.junk = junk
        self.concept = concept
        self.attribute, self.words = _words_of([concept] if isinstance(concept, str) else concept)
        for name, size, most in (
            ("train_size", train_size, 600_000),
            ("validation_size", validation_size, 200_000),
            ("test_size", test_size, 200_000),
        ):
            if not 1 <= size <= most:
                raise InputError(f"{name} is {size}; it must lie between 1 and {most}.")
        self.train_size = train_size
        self.validation_size = validation_size
        self.test_size = test_size
        self.split_seed = split_seed

    def make(self) -> None:
        """Render the images."""
        world = self.split_seed * _WORLD
        sizes = {
            "train": self.train_size,
            "validation": self.validation_size,
            "test": self.test_size,
        }
        indices = {part: world + _FIRST[part] + np.arange(size) for part, size in sizes.items()}
        shows = self.shows(indices["train"])
        parts = {
            "forget": indices["train"][shows],
            "retain": indices["train"][~shows],
            "validation": indices["validation"],
            "test": indices["test"],
        }
        self._share(parts)
        self.augmentation = (
            JunkImages(self.junk, self.attribute, len(NAMES[self.attribute]))
            if self.junk
            else Captions()
        )

    def shows(self, indices: np.ndarray) -> np.ndarray:
        """Mask of images that show a concept: bool `[N]`."""
        classes = torch.tensor([NAMES[self.attribute].index(value) for value in self.words])
        return torch.isin(attributes(indices)[self.attribute], classes).numpy()

    def _share(self, parts: dict[str, np.ndarray]) -> None:
        self.split = Split(
            NAME, parts, {"concept": self.concept, "attribute": self.attribute}, self.split_seed
        )
        self.datasets = {name: self.data(indices) for name, indices in self.split.parts.items()}

    def data(self, indices: np.ndarray) -> PromptData:
        """Images with the captions of their first visit."""
        drawn = pictures(indices)
        drawn["label"] = drawn[self.attribute]
        part = {
            **drawn,
            "index": torch.tensor(indices),
            "visit": torch.zeros(len(indices), dtype=torch.int64),
        }
        return PromptData(drawn, {"prompt": Captions()(part, _SEED)["prompt"]}, indices)


class ShapesConcept(Shapes):
    """Concepts of rendered shapes to forget: shapes, colours or backgrounds.

    Samples have `prompt`, `substitute` (the prompt with the anchor in place of the concept),
    `concept` (the word of the prompt for the concept, empty if absent), `shape`, `colour`,
    `background`, `label` (of the attribute of the concept), and, by default, `image`. The prompts
    of the part `forget` all mention the concept; those of `retain` describe other images.
    `validation` and `test` are new images, with and without the concept.

    Args:
        concept: as in Shapes; prompts use this word, or synonyms too if `prompts` is `varied`.
        anchor: replacement of the concept in `substitute`: another value of the same attribute, or
            empty to remove the concept; or a list with one for each concept.
        images: render images; methods that need prompts only do without them.
        prompts: `plain` (`a red circle on a dark background`), or `varied`: paraphrases, synonyms
            and filler words.
        forget_size: samples to forget.
        retain_size: samples to retain.
        validation_size: new samples for searches.
        test_size: new samples for tests.
        split_seed: chooses the images.
        batch_size: global batch size in fit.
        **kwargs: see Shapes.

    Example: `ShapesConcept(["circle", "star"], anchor=["square", ""], forget_size=100)`.
    """

    provides = frozenset({"labels", "substitute"})

    def __init__(
        self,
        concept: list[str] | str = "circle",
        anchor: list[str] | str = "",
        images: bool = True,
        prompts: Literal["plain", "varied"] = "plain",
        forget_size: int = 200,
        retain_size: int = 800,
        validation_size: int = 100,
        test_size: int = 200,
        split_seed: int = 0,
        batch_size: int = 16,
        **kwargs: Any,
    ) -> None:
        # a range of indices long enough to contain so many images with the concept
        super().__init__(
            concept,
            train_size=16 * (forget_size + retain_size),
            validation_size=validation_size,
            test_size=test_size,
            split_seed=split_seed,
            batch_size=batch_size,
            **kwargs,
        )
        anchors = (concept_anchors(concept, anchor) or {}).values()
        self.anchors = dict(zip(self.words, anchors, strict=True))
        for word, replacement in zip(self.words.values(), anchors, strict=True):
            self._check_anchor(word, replacement)
        self.anchor = anchor
        self.images = images
        self.prompts = prompts
        self.forget_size = forget_size
        self.retain_size = retain_size

    def _check_anchor(self, concept: str, anchor: str) -> None:
        """Check that an anchor is another value of the attribute, which is not erased itself."""
        if not anchor:
            return
        attribute, value = attribute_of(anchor)
        if attribute != self.attribute:
            raise InputError(
                f"the anchor {anchor!r} is no {self.attribute}, as the concept {concept!r} is; "
                f"choose one of {', '.join(NAMES[self.attribute])}, or leave it empty."
            )
        if value in self.words:
            fault = (
                f"is a synonym of the concept {concept!r}"
                if self.words[value] == concept
                else f"of the concept {concept!r} is to be forgotten itself"
            )
            raise InputError(f"the anchor {anchor!r} {fault}; choose another.")

    def make(self) -> None:
        """Render the images and write their prompts."""
        world = self.split_seed * _WORLD
        train = world + np.arange(self.train_size)
        shows = self.shows(train)
        parts = {
            "forget": train[shows][: self.forget_size],
            "retain": train[~shows][: self.retain_size],
            "validation": world + _FIRST["validation"] + np.arange(self.validation_size),
            "test": world + _FIRST["test"] + np.arange(self.test_size),
        }
        self._share(parts)

    def data(self, indices: np.ndarray) -> PromptData:
        """Images, or their attributes only, with prompts."""
        drawn = pictures(indices) if self.images else attributes(indices)
        drawn["label"] = drawn[self.attribute]
        draws = uniform(_SEED, torch.tensor(indices), 0, "shapes/prompt", 1 + DRAWS).tolist()
        texts = [self._texts(names, row) for names, row in zip(names_of(drawn), draws, strict=True)]
        return PromptData(
            drawn,
            {name: [text[name] for text in texts] for name in ("prompt", "substitute", "concept")},
            indices,
        )

    def _texts(self, names: dict[Attribute, str], draws: list[float]) -> dict[str, str]:
        """Prompt, substitute and concept of one image."""
        mentioned = _mentioned_with(self.attribute, draws[0])
        value = names[self.attribute]
        if value not in self.words:
            prompt = self._prompt(names, draws[1:], mentioned, None)
            return {"prompt": prompt, "substitute": prompt, "concept": ""}
        synonyms = WORDS[self.attribute][value] if self.prompts == "varied" else ()
        word = (
            synonyms[int(draws[-1] * len(synonyms))]
            if synonyms and draws[-2] < 0.5
            else self.words[value]
        )
        anchor = self.anchors[value]
        rest = mentioned if anchor else tuple(name for name in mentioned if name != self.attribute)
        return {
            "prompt": self._prompt(names, draws[1:], mentioned, word),
            "substitute": self._prompt(names, draws[1:], rest, anchor or word),
            "concept": word,
        }

    def _prompt(
        self,
        names: dict[Attribute, str],
        draws: list[float],
        mentioned: tuple[Attribute, ...],
        word: str | None,
    ) -> str:
        replacement = {} if word is None else {self.attribute: word}
        if self.prompts == "plain":
            return plain_caption({**names, **replacement}, mentioned)
        return caption(names, draws, mentioned, replacement)


def _words_of(concepts: Sequence[str]) -> tuple[Attribute, dict[str, str]]:
    """Attribute of concepts, and the word for each of their values.

    Raises:
        InputError: there is no concept, one is given twice or is unknown, or they are of two
            attributes.
    """
    if not concepts:
        raise InputError("the list of concepts is empty; give at least one.")
    attribute = attribute_of(concepts[0])[0]
    words: dict[str, str] = {}
    for concept in concepts:
        other, value = attribute_of(concept)
        if other != attribute:
            raise InputError(
                f"the concepts {concepts[0]!r} and {concept!r} are a {attribute} and a {other}; "
                "forget concepts of one attribute at a time."
            )
        if value in words:
            raise InputError(
                f"the concepts {words[value]!r} and {concept!r} are the same; leave one out."
            )
        words[value] = concept
    return attribute, words


def _mentioned_with(attribute: Attribute, draw: float) -> tuple[Attribute, ...]:
    """Attributes that a prompt mentions, drawn among the combinations with this attribute."""
    shares = [(share, mentioned) for share, mentioned in NAMED if attribute in mentioned]
    draw *= sum(share for share, _ in shares)
    for share, mentioned in shares:
        if draw < share:
            return mentioned
        draw -= share
    return shares[-1][1]
