"""The autoencoder as a backbone: its loss by hand, its draws, and that it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mu.backbones import Autoencoder
from mu.methods import Train
from mu.utils.errors import InputError
from tasks import Shapes
from tests.support.helpers import fit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from diffusers import AutoencoderKL  # type: ignore[attr-defined]

    pipeline_folder = tmp_path_factory.mktemp("pipeline")
    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    ).save_pretrained(pipeline_folder / "vae")
    return str(pipeline_folder)


def batch(count: int = 4) -> dict:
    task = Shapes(train_size=64, validation_size=2, test_size=2)
    task.setup()
    part = task.datasets["retain"].__getitems__(list(range(count)))  # type: ignore[attr-defined]
    return {**part, "visit": torch.zeros(count, dtype=torch.int64)}


def test_the_loss_is_squared_error_plus_weighted_divergence(folder: str) -> None:
    backbone = Autoencoder(folder, kl_weight=0.25).train()
    part = backbone.prepare(batch(), 0)
    values, weight = backbone.loss(part)
    pixels = part["image"] * 2 - 1
    posterior = backbone.vae.encode(pixels).latent_dist  # type: ignore[operator]
    latent = posterior.mean + posterior.logvar.mul(0.5).exp() * part["noise"]
    error = ((backbone.vae.decode(latent).sample - pixels) ** 2).mean((1, 2, 3))  # type: ignore[operator]
    normal = torch.distributions.Normal(0.0, 1.0)
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Normal(posterior.mean, posterior.std), normal
    ).mean((1, 2, 3))
    torch.testing.assert_close(values, error + 0.25 * divergence)
    assert weight.tolist() == [1.0] * 4


def test_draws_depend_on_index_and_visit_alone(folder: str) -> None:
    backbone = Autoencoder(folder)
    part = batch()
    noise = backbone.prepare(part, 0)["noise"]
    later = backbone.prepare({**part, "visit": part["visit"] + 1}, 0)["noise"]
    rows = {name: value[2:3] for name, value in part.items()}
    assert noise.shape == (4, 4, 8, 8)
    assert torch.equal(backbone.prepare(rows, 0)["noise"], noise[2:3])
    assert not torch.equal(later, noise)


def test_it_trains_and_evaluates_without_noise(folder: str) -> None:
    backbone = Autoencoder(folder, init_seed=3)
    task = Shapes(train_size=128, validation_size=8, test_size=4, batch_size=16)
    task.setup()
    before = float(backbone.eval().scores(backbone.prepare(batch(16), 0))["error"].mean().detach())
    module = Train(backbone, optimizer=lambda p: torch.optim.AdamW(p, lr=2e-3))
    fit(module, task, 2)
    part = backbone.eval().prepare(batch(16), 0)
    assert float(backbone.scores(part)["error"].mean().detach()) < 0.8 * before
    assert torch.equal(
        backbone.predict(part), backbone.predict({**part, "noise": part["noise"] + 1})
    )


def test_new_weights_come_from_the_seed(folder: str) -> None:
    first = Autoencoder(folder).fresh(1)
    second = Autoencoder(folder, init_seed=1)
    other = Autoencoder(folder).fresh(2)
    pairs = list(zip(first.parameters(), second.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


def test_a_folder_without_an_autoencoder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the autoencoder of"):
        Autoencoder(str(tmp_path))
