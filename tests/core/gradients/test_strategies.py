"""Per-sample gradients of networks of timm: hooks or vmap agree with the loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mu.backbones import Classifier
from mu.core.gradients.per_sample import PerSample, _agree
from mu.utils.errors import InputError

FAMILIES: dict[str, tuple[dict[str, Any], int]] = {
    "resnetv2_50": ({"layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32)}, 32),
    "mobilenetv3_small_050": ({}, 32),
    "convnext_atto": ({"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 16)}, 32),
    "efficientnet_lite0": ({}, 32),
    "tf_efficientnet_b0": ({}, 32),
    "regnety_002": ({}, 32),
    "densenet121": ({"block_config": (2, 2), "growth_rate": 8}, 32),
    "vit_tiny_patch16_224": ({"img_size": 32, "depth": 2}, 32),
    "deit_tiny_distilled_patch16_224": ({"img_size": 32, "depth": 2}, 32),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 64, "window_size": 4, "depths": (1, 1), "embed_dim": 24, "num_heads": (2, 2)},
        64,
    ),
    "beit_base_patch16_224": (
        {"img_size": 32, "depth": 1, "embed_dim": 48, "num_heads": 2},
        32,
    ),
    "repvgg_a0": ({}, 32),
    "mobilevit_xxs": ({}, 64),
}
FAST = ("mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224")


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "channels_last"])
def test_families_of_timm_have_per_sample_gradients(name: str, channels_last: bool) -> None:
    """Mutation that must fail it: channels_last in `predict`, which vmap cannot transform."""
    options, size = FAMILIES[name]
    backbone = Classifier(
        f"timm:{name}", num_classes=3, channels_last=channels_last, init_seed=0, options=options
    ).eval()
    generator = torch.Generator().manual_seed(0)
    part = {
        "image": torch.rand(2, 3, size, size, generator=generator),
        "label": torch.tensor([0, 2]),
        "index": torch.arange(2),
    }
    batch = backbone.prepare(part, 0)
    parameters = list(backbone.named_parameters())
    values = lambda part: backbone.loss(part)[0]  # noqa: E731
    truth = PerSample(backbone, parameters, values, "loop").squares(batch)
    working = []
    for strategy in ("hooks", "vmap"):
        try:
            squares = PerSample(backbone, parameters, values, strategy).squares(batch)  # type: ignore[arg-type]
        except InputError:
            continue
        assert _agree(squares, truth), strategy
        working.append(strategy)
    assert working, "the loop alone works"
