"""`mu import`: a CompVis checkpoint of Stable Diffusion as a diffusers folder."""

from __future__ import annotations

from argparse import BooleanOptionalAction

from mu.cli.parser import Parser
from mu.utils.extras import require


def main(argv: list[str]) -> int:
    """Run `mu import`; returns the exit code."""
    parser = Parser(
        prog="mu import",
        description="Turn a Stable Diffusion checkpoint in CompVis' names, or a UNet or text "
        "encoder alone, into a diffusers folder, which TextToImage(model=FOLDER) and "
        "diffusers read.",
    )
    parser.add_argument(
        "checkpoint", help="the file: safetensors, or a torch file of tensors alone"
    )
    parser.add_argument("folder", help="folder to write, new or empty")
    parser.add_argument(
        "--base",
        required=True,
        help="folder or hub id of a pipeline of the same architecture, for what the file lacks",
    )
    parser.add_argument(
        "--ema",
        action=BooleanOptionalAction,
        default=None,
        help="take the UNet's moving average, or the trained weights; needed where the file has "
        "both (SalUn's: --no-ema)",
    )
    options = parser.parse_args(argv)
    require("mu import", "diffusers", "transformers", extra="diffusion")
    from mu.backbones.export.compvis import import_compvis

    report = import_compvis(options.checkpoint, options.folder, options.base, options.ema)
    print(f"{options.folder}: {report}")
    return 0
