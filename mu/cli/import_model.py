"""`mu import`: a published checkpoint of one file as a folder that mu and diffusers read."""

from __future__ import annotations

from argparse import BooleanOptionalAction

from mu.cli.parser import Parser
from mu.utils.errors import InputError
from mu.utils.extras import require


def main(argv: list[str]) -> int:
    """Run `mu import`; returns the exit code."""
    parser = Parser(
        prog="mu import",
        description="Turn a checkpoint of one file into a folder. A Stable Diffusion in CompVis' "
        "names, or a UNet or text encoder alone, becomes a diffusers folder, which "
        "TextToImage(model=FOLDER) and diffusers read; a class-conditional checkpoint of the DDPM "
        "code (SA, SalUn, SFD) becomes a folder for ClassConditionalDiffusion(model=FOLDER).",
    )
    parser.add_argument(
        "checkpoint", help="the file: safetensors, or a torch file of tensors alone"
    )
    parser.add_argument("folder", help="folder to write, new or empty")
    parser.add_argument(
        "--base",
        default=None,
        help="folder or hub id of a pipeline of the same architecture, for what a Stable Diffusion "
        "file lacks; required for these",
    )
    parser.add_argument(
        "--ema",
        action=BooleanOptionalAction,
        default=None,
        help="take the moving average, or the trained weights; needed where the file has both "
        "(SalUn's: --no-ema)",
    )
    options = parser.parse_args(argv)
    require("mu import", "diffusers", "transformers", extra="diffusion")
    from mu.backbones.export.compvis import import_compvis
    from mu.backbones.export.ddpm import import_ddpm

    report = import_ddpm(options.checkpoint, options.folder, options.ema)
    if report is None and options.base is None:
        raise InputError(
            "mu import needs --base: a pipeline of the same architecture, by folder or hub id, for "
            "what the file lacks."
        )
    report = report or import_compvis(options.checkpoint, options.folder, options.base, options.ema)
    print(f"{options.folder}: {report}")
    return 0
