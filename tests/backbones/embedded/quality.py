"""How well the models that come with mu draw, by judges trained on real pictures; and a grid to
look at.

    python -m tests.backbones.embedded.quality [--grid runs/embedded.png]

prints, for every shape, colour, background and digit, the share of samples that the judge
recognises.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mu.backbones import ClassConditionalDiffusion, TextToImage
from mu.backbones.diffusion.sampler import Sampler
from mu.evaluation.images.classifier_judge import judge
from mu.utils.rng import uniform
from tasks.shapes.task import NAMES
from tasks.shapes.words import ATTRIBUTES, DRAWS, Attribute, caption, plain_caption

SAMPLER = Sampler(num_inference_steps=20, guidance_scale=2.0)
_BATCH = 75


def shapes_model(model: str = "embedded:shapes") -> TextToImage:
    return TextToImage(model, sampler=SAMPLER).eval()


def digits_model(model: str = "embedded:digits") -> ClassConditionalDiffusion:
    return ClassConditionalDiffusion(model, sampler=SAMPLER).eval()


def combinations(repeats: int) -> Tensor:
    """Every shape, colour and background, `repeats` times: [75 * repeats, 3]."""
    return torch.cartesian_prod(
        *(torch.arange(len(NAMES[attribute])) for attribute in ATTRIBUTES)
    ).repeat(repeats, 1)


def prompts_of(rows: Tensor, varied: bool) -> list[str]:
    combinations_named = [
        {
            attribute: NAMES[attribute][value]
            for attribute, value in zip(ATTRIBUTES, row, strict=True)
        }
        for row in rows.tolist()
    ]
    if not varied:
        return [plain_caption(combination) for combination in combinations_named]
    draws = uniform(7, torch.arange(len(rows)), 0, "quality/caption", DRAWS).tolist()
    return [
        caption(combination, row, ATTRIBUTES)
        for combination, row in zip(combinations_named, draws, strict=True)
    ]


@torch.no_grad()
def draw(backbone: TextToImage, prompts: Sequence[str], first_seed: int = 0) -> Tensor:
    seeds = range(first_seed, first_seed + len(prompts))
    starts = range(0, len(prompts), _BATCH)
    return torch.cat(
        [
            backbone.generate_prompts(
                prompts[start : start + _BATCH], seeds[start : start + _BATCH]
            )
            for start in starts
        ]
    )


def recognised(images: Tensor, labels: Tensor, kind: str) -> dict[str, float]:
    """Share of the images of each class that the judge of `kind` takes for it."""
    network = judge(kind)
    predicted = torch.cat(
        [network.predict({"image": part}).argmax(1) for part in images.split(256)]
    )
    names = network.weights_metadata["class_names"]
    return {
        names[label]: (predicted[labels == label] == label).float().mean().item()
        for label in sorted(set(labels.tolist()))
    }


def of_shapes(
    backbone: TextToImage, repeats: int = 3, varied: bool = False, first_seed: int = 0
) -> tuple[dict[str, dict[str, float]], Tensor]:
    """Shares by attribute and class, and the images."""
    rows = combinations(repeats)
    images = draw(backbone, prompts_of(rows, varied), first_seed)
    return {
        attribute: recognised(images, rows[:, column], attribute)
        for column, attribute in enumerate(ATTRIBUTES)
    }, images


def of_one_attribute(
    backbone: TextToImage, kind: Attribute, count: int, first_seed: int = 10_000
) -> dict[str, float]:
    """Shares where the prompt names this attribute alone (`a circle`, `a red shape`)."""
    labels = torch.arange(len(NAMES[kind])).repeat(count)
    prompts = [
        plain_caption(
            {other: NAMES[other][label if other == kind else 0] for other in ATTRIBUTES}, (kind,)
        )
        for label in labels.tolist()
    ]
    return recognised(draw(backbone, prompts, first_seed), labels, kind)


def of_digits(
    backbone: ClassConditionalDiffusion, count: int = 40, first_seed: int = 0
) -> tuple[dict[str, float], Tensor]:
    """Share by digit, and the images."""
    labels = torch.arange(10).repeat(count)
    images = backbone.generate(backbone.labels(labels), range(first_seed, first_seed + len(labels)))
    return recognised(images, labels, "digits"), images


def least(shares: Mapping[str, float]) -> float:
    return min(shares.values())


def main() -> None:
    from torchvision.utils import make_grid, save_image

    parser = argparse.ArgumentParser(prog="python -m tests.backbones.embedded.quality")
    parser.add_argument("--shapes", default="embedded:shapes")
    parser.add_argument("--digits", default="embedded:digits")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--grid", help="PNG to write; the digits go beside it")
    chosen = parser.parse_args()
    backbone = shapes_model(chosen.shapes)
    for varied in (False, True):
        shares, images = of_shapes(backbone, chosen.repeats, varied)
        for attribute, attribute_shares in shares.items():
            print(
                "varied" if varied else "plain",
                attribute,
                {name: round(share, 3) for name, share in attribute_shares.items()},
            )
        if chosen.grid and not varied:
            save_image(
                torch.nn.functional.interpolate(
                    make_grid(images[:75], 15, 1)[None], scale_factor=2
                )[0],
                chosen.grid,
            )
    for attribute in ATTRIBUTES:
        print(
            "alone",
            attribute,
            {
                name: round(share, 3)
                for name, share in of_one_attribute(backbone, attribute, 40).items()
            },
        )
    shares, images = of_digits(digits_model(chosen.digits))
    print("digits", {name: round(share, 3) for name, share in shares.items()})
    if chosen.grid:
        beside = chosen.grid.replace(".png", "_digits.png")
        save_image(
            torch.nn.functional.interpolate(make_grid(images[:100], 10, 1)[None], scale_factor=4)[
                0
            ],
            beside,
        )


if __name__ == "__main__":
    main()
