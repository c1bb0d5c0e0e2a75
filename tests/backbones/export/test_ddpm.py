"""Import of class-conditional checkpoints of the DDPM code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mu.backbones import ClassConditionalDiffusion
from mu.backbones.diffusion.ddpm_unet import ConditionalDDPM
from mu.backbones.export import export
from mu.cli.main import main
from tests.support.helpers import State, different, weights

_SIZE: dict[str, Any] = {"channels": 32, "multipliers": (1, 1), "layers_per_block": 1}


def network(seed: int) -> State:
    """Weights of a small denoiser, by the published names."""
    torch.manual_seed(seed)
    model = ConditionalDDPM(sample_size=32, attention_levels=(1,), num_class_embeds=6, **_SIZE)
    return model.state_dict()


def parallel(state: State) -> State:
    """The names that DataParallel gives."""
    return {f"module.{name}": value for name, value in state.items()}


OPTIMIZER = {"state": {}, "param_groups": [{"lr": 1e-4, "params": [0]}]}


@pytest.mark.parametrize(
    ("ema", "source"), [("--no-ema", "the trained weights"), ("--ema", "the moving average")]
)
def test_a_list_of_weights_and_their_average(
    ema: str, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when the optimizer's state is taken for weights, or the copy is not that which was
    chosen.
    """
    trained, average = network(0), network(1)
    file = tmp_path / "ckpt.pth"
    torch.save([parallel(trained), OPTIMIZER, 3, 800, average], file)
    assert main(["import", str(file), str(tmp_path / "out"), ema]) == 0
    assert source in capsys.readouterr().out
    backbone = ClassConditionalDiffusion(str(tmp_path / "out"))
    expected = trained if ema == "--no-ema" else average
    assert different(weights(backbone.unet), expected) == []
    assert backbone.num_classes == 5 and backbone.sample_shape == (3, 32, 32)
    assert float(backbone.alphas_cumprod[0]) == pytest.approx(1 - 1e-4)
    export(backbone, tmp_path / "again")
    again = ClassConditionalDiffusion(str(tmp_path / "again"))
    condition = backbone.labels([0, 4])
    images = [
        model.eval().generate(
            condition, [1, 2], type(model.sampler)(num_inference_steps=2, guidance_scale=3.0)
        )
        for model in (backbone, again)
    ]
    assert torch.equal(*images)


def test_the_label_behind_the_last_is_no_class(tmp_path: Path) -> None:
    """Fails when the null label reads a class's embedding, or a class is none."""
    model = ConditionalDDPM(sample_size=32, attention_levels=(1,), num_class_embeds=6, **_SIZE)
    model.eval()
    noised, t = torch.randn(2, 3, 32, 32), torch.tensor([5, 900])
    with torch.no_grad():
        before = [model(noised, t, torch.full((2,), label))[0] for label in (0, 5)]
        model.null_classes_emb.add_(1.0)
        after = [model(noised, t, torch.full((2,), label))[0] for label in (0, 5)]
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_a_list_of_two_networks_is_a_distilled_generator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when SFD's fake score is taken for its generator."""
    fake, generator = network(0), network(1)
    file = tmp_path / "sfd.pth"
    torch.save([parallel(fake), OPTIMIZER, parallel(generator), OPTIMIZER, 50], file)
    assert main(["import", str(file), str(tmp_path / "out")]) == 0
    assert "the generator" in capsys.readouterr().out
    backbone = ClassConditionalDiffusion(str(tmp_path / "out"))
    assert different(weights(backbone.unet), generator) == []


def test_open_or_truncated_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when one of two copies is taken without a word, or a missing weight is drawn."""
    state = network(0)
    cut = {name: value for name, value in state.items() if "mid.block_2" not in name}
    file = tmp_path / "ckpt.pth"
    for content, options, message in (
        ([state, OPTIMIZER, 1, network(1)], [], "say which with --no-ema or --ema"),
        (state, ["--ema"], "no moving average"),
        (cut, [], "lacks mid.block_2"),
        ({"null_classes_emb": state["null_classes_emb"]}, [], "has no conv_in.weight"),
        ({"weight": torch.zeros(2)}, [], "needs --base"),
        ([1, 2], [], "needs --base"),
    ):
        torch.save(content, file)
        assert main(["import", str(file), str(tmp_path / "out"), *options]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
