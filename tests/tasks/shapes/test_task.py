"""The shapes task: pictures that are a pure function of their index, prompts that say what is
drawn, parts that partition.
"""

from __future__ import annotations

import colorsys
import re

import numpy as np
import pytest
import torch

from mu.utils.errors import InputError
from tasks.prompts import PromptData
from tasks.shapes.render import JITTER, render
from tasks.shapes.task import NAMES, Captions, Shapes, ShapesConcept, attributes, names_of, pictures
from tasks.shapes.words import (
    ATTRIBUTES,
    DRAWS,
    NAMED,
    WORDS,
    Attribute,
    attribute_of,
    caption,
    named_attributes,
    plain_caption,
    vocabulary,
)

EVERYTHING = torch.cartesian_prod(
    *(torch.arange(len(NAMES[attribute])) for attribute in ATTRIBUTES)
)


def drawn_once(jitter: float = 0.5) -> torch.Tensor:
    """Every combination once, all with the same jitter: [75, 3, 32, 32] in [0, 1]."""
    return (
        render(*EVERYTHING.unbind(1), torch.full((len(EVERYTHING), JITTER), jitter)).float() / 255
    )


def painted(image: torch.Tensor) -> torch.Tensor:
    """Pixels of a saturated colour; backgrounds are grey. [H, W] bool."""
    return image.max(0).values - image.min(0).values > 0.3


# ---- pictures ------------------------------------------------------------------------------------


def test_a_picture_depends_on_its_index_alone() -> None:
    some = pictures(np.array([7, 3, 600_001]))
    alone = [pictures(np.array([index])) for index in (7, 3, 600_001)]
    for name, values in some.items():
        assert torch.equal(values, torch.cat([picture[name] for picture in alone])), name
    assert some["image"].dtype == torch.uint8
    assert some["image"].shape == (3, 3, 32, 32)
    assert not torch.equal(some["image"][0], some["image"][1])


def test_more_pictures_than_are_drawn_at_once_keep_their_order() -> None:
    many = pictures(np.arange(2100))["image"]
    assert torch.equal(many[2040:2060], pictures(np.arange(2040, 2060))["image"])


def test_all_values_of_all_attributes_are_drawn_about_equally_often() -> None:
    for attribute, values in attributes(np.arange(15_000)).items():
        count = torch.bincount(values, minlength=len(NAMES[attribute])).double()  # type: ignore[index]
        expected = 15_000 / len(count)
        # chi-square with 4 degrees of freedom: 20 has p = 0.0005
        assert ((count - expected) ** 2 / expected).sum() < 20, attribute


def test_every_combination_is_another_picture() -> None:
    flat = drawn_once().flatten(1)
    distance = torch.cdist(flat, flat) + 100 * torch.eye(len(flat))
    # 3 pixels that change from black to white, or many that change a little
    assert distance.min() > 2


def test_colours_are_recovered_from_the_hue_of_the_saturated_pixels() -> None:
    hues = {"red": 0.0, "green": 0.36, "blue": 0.61, "yellow": 0.145, "purple": 0.79}
    for batch in (pictures(np.arange(300)),):
        for image, colour in zip(
            batch["image"].float() / 255, batch["colour"].tolist(), strict=True
        ):
            red, green, blue = image[:, painted(image)].median(1).values.tolist()
            hue = colorsys.rgb_to_hsv(red, green, blue)[0]
            apart = {
                name: min(abs(hue - measured_hue), 1 - abs(hue - measured_hue))
                for name, measured_hue in hues.items()
            }
            assert min(apart, key=lambda name: apart[name]) == NAMES["colour"][colour]


def test_shapes_are_recovered_by_how_much_of_their_box_they_fill_and_where() -> None:
    """Centred and upright: a square fills its box, a circle π/4 of it, a triangle half; a cross is
    symmetric up and down, a star is not.
    """
    filled = {}
    for row, image in zip(EVERYTHING.tolist(), drawn_once(), strict=True):
        name, colour, ground = (
            NAMES[attribute][value] for attribute, value in zip(ATTRIBUTES, row, strict=True)
        )
        mask = painted(image)
        rows = mask.any(1).nonzero()[:, 0]
        columns = mask.any(0).nonzero()[:, 0]
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
        upright = (box - box.flip(0)).abs().mean() < 0.05
        filled[name, colour, ground] = box.mean().item()
        low, high, symmetric = {
            "circle": (0.7, 0.86, True),
            "square": (0.97, 1.01, True),
            "triangle": (0.44, 0.62, False),
            "star": (0.25, 0.48, False),
            "cross": (0.48, 0.62, True),
        }[name]
        assert low < filled[name, colour, ground] < high, (
            name,
            colour,
            ground,
            filled[name, colour, ground],
        )
        assert bool(upright) is symmetric, (name, colour, ground)


def test_the_whole_shape_is_in_the_picture_at_the_ends_of_the_jitter() -> None:
    for offset in (0.0, 1.0):
        image = drawn_once(offset)
        edge = torch.cat(
            [image[:, :, 0], image[:, :, -1], image[:, :, :, 0], image[:, :, :, -1]], 2
        )
        assert (edge.max(1).values - edge.min(1).values).max() < 0.01  # grey all around


def test_backgrounds_are_recovered_from_their_corners() -> None:
    for row, image in zip(EVERYTHING.tolist(), drawn_once(), strict=True):
        line = image[:, 0].mean(0)
        ground = NAMES["background"][row[2]]
        assert {
            "dark": line.max() < 0.2,
            "light": line.min() > 0.8,
            "striped": line.max() - line.min() > 0.3,
        }[ground]


# ---- words ---------------------------------------------------------------------------------------


def every_word(attribute: Attribute) -> set[str]:
    return {synonym for synonyms in WORDS[attribute].values() for synonym in synonyms}


def said(text: str, attribute: Attribute) -> set[str]:
    """The values of an attribute that a text names; a longer synonym goes before a shorter one that
    it contains.
    """
    names = set()
    pairs = [(synonym, name) for name, synonyms in WORDS[attribute].items() for synonym in synonyms]
    for synonym, name in sorted(pairs, key=lambda pair: -len(pair[0])):
        text, count = re.subn(rf"(?<!\w){synonym}(?!\w)", "-", text)
        if count:
            names.add(name)
    return names


def captions(count: int = 600) -> list[tuple[dict[Attribute, str], tuple[Attribute, ...], str]]:
    indices = np.arange(count)
    attribute_names = names_of(attributes(indices))
    draws = torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(0)).tolist()
    return [
        (names, named_attributes(row[0]), caption(names, row))
        for names, row in zip(attribute_names, draws, strict=True)
    ]


def test_a_caption_names_what_is_drawn_and_nothing_else() -> None:
    for names, chosen, text in captions():
        for attribute in ATTRIBUTES:
            assert said(text, attribute) == (
                {names[attribute]} if attribute in chosen else set()
            ), text


def test_each_attribute_alone_conditions_and_some_captions_say_nothing() -> None:
    conditions = {chosen for _, chosen, _ in captions(2000)}
    assert {("shape",), ("colour",), ("background",), ()} <= conditions
    assert sum(share for share, _ in NAMED) == pytest.approx(1)


def test_words_mean_one_thing_and_fillers_mean_nothing() -> None:
    for attribute in ATTRIBUTES:
        words = [synonym for synonyms in WORDS[attribute].values() for synonym in synonyms]
        assert len(words) == len(set(words))
    assert not (every_word("shape") & every_word("colour")) | (
        every_word("colour") & every_word("background")
    )
    assert len(vocabulary()) >= 300
    carried = {word for *_, text in captions(3000) for word in text.split()}
    assert len(carried & set(vocabulary())) > 0.9 * len(vocabulary())
    assert carried <= set(vocabulary())


def test_the_rest_of_a_caption_stays_when_an_attribute_is_renamed_or_left_out() -> None:
    names: dict[Attribute, str] = {"shape": "circle", "colour": "red", "background": "dark"}
    for seed in range(30):
        draws = torch.rand(DRAWS, generator=torch.Generator().manual_seed(seed)).tolist()
        original = caption(names, draws, ATTRIBUTES, {"colour": "red"})
        assert caption(names, draws, ATTRIBUTES, {"colour": "green"}) == original.replace(
            "red ", "green "
        )
        assert caption(names, draws, ("shape", "background"), {"colour": "red"}) in (
            original.replace("red ", ""),
            re.sub(r"\ban? red ([aeiou])", r"an \1", original),
        )


def test_default_prompt_of_a_concept() -> None:
    names: dict[Attribute, str] = {"shape": "circle", "colour": "red", "background": "dark"}
    assert plain_caption(names) == "a red circle on a dark background"
    assert plain_caption(names, ("shape",)) == "a circle"
    assert plain_caption(names, ("background",)) == "a shape on a dark background"


def test_a_synonym_finds_its_attribute_and_an_unknown_word_is_refused() -> None:
    assert attribute_of("Crimson") == ("colour", "red")
    assert attribute_of("five pointed shape") == ("shape", "star")
    with pytest.raises(
        InputError,
        match=r"no concept 'dog'; it has shapes: circle, square, triangle, star, cross; "
        r"colours: red.*",
    ):
        attribute_of("dog")


# ---- tasks ---------------------------------------------------------------------------------------


def small(**changes: object) -> ShapesConcept:
    settings: dict = {"forget_size": 20, "retain_size": 40, "validation_size": 5, "test_size": 10}
    task = ShapesConcept(**{**settings, **changes})
    task.setup()
    return task


def whole(task: Shapes, part: str) -> dict:
    data = task.datasets[part]
    return data.__getitems__(list(range(len(data))))  # type: ignore[attr-defined, arg-type]


def test_parts_partition_the_training_pictures_by_the_concept() -> None:
    task = Shapes("red", train_size=200, validation_size=10, test_size=10)
    task.setup()
    assert np.array_equal(task.split.train, np.arange(200))
    red = NAMES["colour"].index("red")
    assert (whole(task, "forget")["colour"] == red).all()
    assert (whole(task, "retain")["colour"] != red).all()
    indices = np.concatenate(list(task.split.parts.values()))
    assert len(set(indices.tolist())) == len(indices)
    other = Shapes("red", train_size=200, validation_size=10, test_size=10, split_seed=1)
    assert not set(other.split.train.tolist()) & set(task.split.train.tolist())
    assert other.split.hash != task.split.hash
    assert (
        Shapes("circle", train_size=200, validation_size=10, test_size=10).split.train_hash
        == task.split.train_hash
    )


def test_a_visit_brings_another_caption_of_the_same_picture() -> None:
    task = Shapes(train_size=50, validation_size=5, test_size=5)
    part = whole(task, "retain") if task.split else {}
    first, again, later = (
        Captions()({**part, "visit": torch.full_like(part["index"], visit)}, 0)["prompt"]
        for visit in (0, 0, 1)
    )
    assert first == again
    assert sum(a != b for a, b in zip(first, later, strict=True)) > 0.9 * len(first)
    for text, names in zip(later, names_of(part), strict=True):
        assert all(said(text, attribute) <= {names[attribute]} for attribute in ATTRIBUTES)


@pytest.mark.parametrize("prompts", ["plain", "varied"])
@pytest.mark.parametrize("concept", ["circle", "red", "dark"])
@pytest.mark.parametrize("anchored", [False, True])
def test_forget_prompts_name_the_concept_and_substitutes_do_not(
    prompts: str, concept: str, anchored: bool
) -> None:
    attribute, _ = attribute_of(concept)
    anchor = (
        {"shape": "square", "colour": "blue", "background": "light"}[attribute] if anchored else ""
    )
    task = small(concept=concept, prompts=prompts, anchor=anchor)
    forget = whole(task, "forget")
    retain = whole(task, "retain")
    assert len(forget["prompt"]) == 20
    assert len(retain["prompt"]) == 40
    for prompt, substitute, word in zip(
        forget["prompt"], forget["substitute"], forget["concept"], strict=True
    ):
        assert re.search(rf"(?<!\w){word}(?!\w)", prompt)
        assert attribute_of(word) == (attribute, concept)
        assert said(prompt, attribute) == {concept}
        assert said(substitute, attribute) == ({anchor} if anchor else set())
        for other in {*ATTRIBUTES} - {attribute}:
            assert said(prompt, other) == said(substitute, other)
    assert retain["concept"] == [""] * 40
    assert retain["substitute"] == retain["prompt"]
    assert all(concept not in said(prompt, attribute) for prompt in retain["prompt"])
    assert torch.equal(forget["label"], forget[attribute])
    assert len(set(forget["concept"])) == (1 if prompts == "plain" else len(set(forget["concept"])))


def test_nothing_but_the_concept_differs_between_prompt_and_substitute() -> None:
    forget = whole(small(concept="red", prompts="varied", anchor="blue"), "forget")
    for prompt, substitute, word in zip(
        forget["prompt"], forget["substitute"], forget["concept"], strict=True
    ):
        if " " not in word:  # a longer synonym may leave no room for the ending
            assert re.sub(r"\ban? ", "", prompt).replace(word, "blue") == re.sub(
                r"\ban? ", "", substitute
            )


def test_without_images_the_prompts_are_the_same() -> None:
    with_images = small(images=True)
    without = small(images=False)
    a = whole(with_images, "forget")
    b = whole(without, "forget")
    assert "image" in a
    assert "image" not in b
    assert a["prompt"] == b["prompt"]
    assert a["image"].dtype == torch.float32
    assert with_images.split.hash == without.split.hash


def test_several_concepts_have_an_anchor_each() -> None:
    """Fails when the second concept is retained, or takes the first one's anchor."""
    task = small(concept=["circle", "star"], anchor=["square", ""])
    forget = whole(task, "forget")
    assert set(forget["concept"]) == {"circle", "star"}
    for prompt, substitute, concept in zip(
        forget["prompt"], forget["substitute"], forget["concept"], strict=True
    ):
        assert concept in prompt
        assert concept not in substitute
        assert ("square" in substitute) == (concept == "circle")
    retain = whole(task, "retain")
    assert not {"circle", "star"} & {word for prompt in retain["prompt"] for word in prompt.split()}
    assert set(retain["concept"]) == {""}
    assert task.split.selector["concept"] == ["circle", "star"]


def test_a_list_of_one_concept_is_that_concept() -> None:
    """Fails when a list changes which images are chosen."""
    one, listed = small(concept="circle"), small(concept=["circle"])
    assert whole(one, "forget")["prompt"] == whole(listed, "forget")["prompt"]


def test_invalid_arguments_are_one_sentence() -> None:
    for wrong, message in (
        ({"concept": "cat"}, "no concept 'cat'"),
        ({"concept": "red", "anchor": "square"}, "is no colour"),
        ({"concept": "red", "anchor": "crimson"}, "is a synonym of"),
        ({"concept": []}, "list of concepts is empty"),
        ({"concept": ["red", "circle"]}, "are a colour and a shape"),
        ({"concept": ["red", "crimson"]}, "are the same"),
        ({"concept": ["circle", "star"], "anchor": ["star", ""]}, "is to be forgotten itself"),
        ({"concept": ["circle", "star"], "anchor": ["square"]}, "1 anchors for 2 concepts"),
        ({"test_size": 0}, "test_size is 0"),
    ):
        with pytest.raises(InputError, match=message):
            small(**wrong)


def test_prompt_data_takes_lists_as_long_as_its_tensors() -> None:
    data = PromptData({"label": torch.arange(3)}, {"prompt": ["a", "b", "c"]}, np.array([5, 6, 9]))
    batch = data.__getitems__([2, 0])
    assert batch["prompt"] == ["c", "a"]
    assert batch["label"].tolist() == [2, 0]
    assert batch["index"].tolist() == [9, 5]
    assert data[1]["prompt"] == "b"
    with pytest.raises(InputError, match="`prompt` has 2 entries for 3 samples"):
        PromptData({"label": torch.arange(3)}, {"prompt": ["a", "b"]}, np.arange(3))


def test_a_plan_shows_prompts_beside_images() -> None:
    from mu.data.plan import Paired

    task = small(batch_size=8)
    batch = next(iter(task.plan_loader(Paired(), 0)))
    for part in ("forget", "retain"):
        assert (
            len(batch[part]["prompt"])
            == len(batch[part]["image"])
            == len(batch[part]["substitute"])
            == 8
        )
