"""Import of class-conditional checkpoints of the DDPM code (SA, SalUn, EraseDiff, SFD)."""

from __future__ import annotations

from pathlib import Path

from mu.backbones.diffusion.class_conditional import ClassConditionalDiffusion
from mu.backbones.diffusion.ddpm_file import ddpm_network, ddpm_tensors
from mu.backbones.export.card import model_card, new_folder
from mu.backbones.export.diffusion import CARD, CLASS_USAGE
from mu.utils.files import write_text
from mu.utils.version import __version__

_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "clip_sample": False,
}
"""Noise schedule of the published configurations, whose sampler does not clip."""


def import_ddpm(checkpoint: Path | str, folder: Path | str, ema: bool | None = None) -> str | None:
    """Write `unet/` and `scheduler/` of a checkpoint of the DDPM code.

    Args:
        checkpoint: torch file.
        folder: output folder; new or empty.
        ema: take the moving average, or the trained weights; required where the file has both.

    Returns:
        One sentence about the source of the weights; None for a file of another kind.

    Raises:
        InputError: when the file cannot be read, leaves the choice open, or is not complete.
    """
    from diffusers import DDIMScheduler

    checkpoint, folder = Path(checkpoint), Path(folder)
    stored = ddpm_tensors(checkpoint, ema)
    if stored is None:
        return None
    tensors, copy = stored
    with new_folder(folder) as temporary:
        network = ddpm_network(tensors, checkpoint)
        network.save_pretrained(temporary / "unet")  # type: ignore[operator]
        DDIMScheduler(**_SCHEDULE).save_pretrained(temporary / "scheduler")  # type: ignore[arg-type]
        backbone = ClassConditionalDiffusion(str(temporary))
        side = backbone.sample_shape[-1]
        sentence = f"unet{f' ({copy})' if copy else ''} from {checkpoint.name}"
        write_text(
            temporary / "README.md",
            model_card(
                CARD,
                title=folder.name,
                license=None,
                results={},
                kind="unconditional-image-generation",
                library_name="diffusers",
                base_model=None,
                version=__version__,
                what=f"A denoiser of {side} × {side} images of {backbone.num_classes} classes, "
                "from a checkpoint of the DDPM code",
                about=f"Taken is {sentence}.",
                usage=CLASS_USAGE,
            ),
        )
    return f"{sentence}; {backbone.num_classes} classes of {side} x {side} images"
