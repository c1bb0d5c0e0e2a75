"""`mu generate`: images or answers of models for the same prompts, side by side."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mu.cli.parser import Parser
from mu.utils.errors import InputError
from mu.utils.text_files import check_new_folder

_EPILOG = (
    "MODEL and OTHER are a run folder or checkpoint of mu, a folder of diffusers, transformers or "
    "mu export, a hub id, or a file of weights, whose architecture comes from a task's or a "
    "backbone's file (-c)."
)


def main(argv: list[str]) -> int:
    """Run `mu generate`; returns the exit code."""
    from mu.utils.quiet import quiet

    options = _parser().parse_args(argv)
    with quiet():
        folder = generate(options, ["mu", "generate", *argv])
    print(f"page: {folder / 'index.html'}")
    return 0


def _parser() -> Parser:
    """Parser of the words of the command."""
    parser = Parser(
        prog="mu generate",
        description="Images or answers of one or several models for the same prompts and seeds, as "
        "an HTML page, a table and files.",
        epilog=_EPILOG,
    )
    parser.add_argument("model", help="run folder, or any other model", metavar="MODEL")
    parser.add_argument(
        "--prompts",
        nargs="+",
        required=True,
        metavar="PROMPT",
        help="texts, numbers of classes, or files: .txt with a prompt a line, .csv or .json(l) "
        "with a column prompt or question",
    )
    parser.add_argument(
        "--beside", nargs="+", default=[], metavar="OTHER", help="models to compare it with"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder to write, new or empty (default: runs/generate-NAME-TIME)",
    )
    parser.add_argument(
        "-c",
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="task or backbone file, for the class and options of a model that is no run",
    )
    _add_common_options(parser)
    _add_image_options(parser.add_argument_group("images, by the names of diffusers"))
    _add_text_options(parser.add_argument_group("answers, by the names of transformers"))
    return parser


def _add_common_options(parser: Parser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="seed of the first output (default: 0)")
    parser.add_argument(
        "--num_images_per_prompt",
        "--num_return_sequences",
        type=int,
        default=1,
        dest="repeats",
        metavar="N",
        help="images or answers of a prompt, with consecutive seeds (default: 1)",
    )
    parser.add_argument("--batch_size", type=int, default=8, help="prompts at a time (default: 8)")
    parser.add_argument("--device", help="device of the models (default: a GPU where there is one)")


def _add_image_options(group: Any) -> None:
    group.add_argument("--scheduler", help="scheduler class of diffusers")
    group.add_argument("--num_inference_steps", type=int, help="denoising steps")
    group.add_argument("--guidance_scale", type=float, help="scale of classifier-free guidance")
    group.add_argument("--eta", type=float, help="share of ancestral noise (DDIM)")


def _add_text_options(group: Any) -> None:
    group.add_argument("--max_new_tokens", type=int, help="most tokens of an answer (default: 200)")
    group.add_argument(
        "--do_sample",
        action="store_true",
        default=None,
        help="sample tokens (default: take the likeliest)",
    )
    group.add_argument("--temperature", type=float, help="of the sampling (default: 1)")
    group.add_argument("--top_k", type=int, help="sample from the k likeliest tokens")
    group.add_argument("--top_p", type=float, help="sample from the likeliest tokens up to this")
    group.add_argument("--num_beams", type=int, help="beams of a beam search")
    group.add_argument("--repetition_penalty", type=float, help="penalty of repeated tokens")
    group.add_argument("--stop_strings", nargs="+", help="strings at which an answer ends")
    group.add_argument(
        "--template",
        help="template of the questions: a class such as mu.data.Plain, or none (default: the "
        "run's, else the tokenizer's chat template, else none)",
    )


def generate(options: argparse.Namespace, command: Sequence[str]) -> Path:
    """Generate, and write the folder.

    Args:
        options: of the command line.
        command: its words, for the page.

    Returns:
        The folder.

    Raises:
        InputError: for a model, prompt or option that cannot be used.
    """
    from mu.backbones.export.card import new_folder
    from mu.cli.generation.comparison import Comparison
    from mu.cli.generation.models import sources_of
    from mu.cli.generation.page import Generations, write_files
    from mu.cli.generation.prompts import prompt_rows

    # 1. what can be checked before a model is loaded
    if options.batch_size < 1:
        raise InputError(f"--batch_size is {options.batch_size}; it is at least 1.")
    rows = prompt_rows(options.prompts, options.seed, options.repeats)
    sources = sources_of([options.model, *options.beside])
    folder = options.output or _default_folder(sources[0].name)
    check_new_folder(folder, "the output folder")
    # 2. one model after another
    comparison = Comparison(options, rows, sources)
    with new_folder(folder) as temporary:
        columns = [comparison.column(source, temporary) for source in sources]
        is_random = bool(options.do_sample or columns[0].width)
        command_line = shlex.join(command)
        write_files(
            temporary,
            Generations(command_line, comparison.settings, rows, is_random, columns),
        )
    return folder


def _default_folder(name: str) -> Path:
    """New folder `runs/generate-NAME-TIME`."""
    folder = Path("runs") / f"generate-{Path(name).name}-{time.strftime('%Y%m%d-%H%M%S')}"
    suffix = 2
    stem = folder.name
    while folder.exists():
        folder = folder.with_name(f"{stem}-{suffix}")
        suffix += 1
    return folder
