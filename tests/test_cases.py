"""Small inputs from public reports: each case's command, judged by what its README calls right.

The folder `../shared/cases` holds them, one folder a case with a `run.sh`; `make cases` runs them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CASES = ROOT.parent / "shared" / "cases"

RENAMES = {"mu.encoding": "mu.data.encoding", "mu.assets": "mu.backbones.embedded"}
"""Modules that have moved since the cases were written."""

TRACEBACK = "Traceback (most recent call last)"


def exit_codes(output: str) -> list[int]:
    """Exit codes that a case's `echo "rc $?"` printed, in order."""
    return [int(code) for code in re.findall(r"rc (\d+)\s*$", output, flags=re.MULTILINE)]


def section(output: str, title: str) -> str:
    """The lines below `== title`, up to the next such heading."""
    return output.split(f"== {title}\n", 1)[1].split("\n== ", 1)[0]


def succeeds(output: str, folder: Path) -> bool:
    """Whether every command of the case ended with exit code 0."""
    return set(exit_codes(output)) == {0}


def refuses(*words: str) -> Callable[[str, Path], bool]:
    """A check that every command was refused with exit code 2 and that the words were printed."""

    def check(output: str, folder: Path) -> bool:
        text = " ".join(output.split())
        return set(exit_codes(output)) == {2} and all(word in text for word in words)

    return check


def either(*checks: Callable[[str, Path], bool]) -> Callable[[str, Path], bool]:
    """A check that holds when one of the checks does."""
    return lambda output, folder: any(check(output, folder) for check in checks)


def stale_results_are_named(output: str, folder: Path) -> bool:
    """Report and card name the numbers of earlier weights as such, or leave them out."""
    stale = re.compile("weights (have )?changed|other weights|earlier weights|trained further")
    return all(
        stale.search(section(output, title)) is not None
        or re.search(r"\bUA\b", section(output, title)) is None
        for title in ("report", "card")
    )


def another_split_is_refused(output: str, folder: Path) -> bool:
    """The resume is refused, and config.yaml still holds the first fraction."""
    return exit_codes(output) == [2] and "split" in output and "fraction: 0.5" not in output


def ids_are_text(output: str, folder: Path) -> bool:
    """1 and 01 forget six rows each."""
    return succeeds(output, folder) and len(re.findall("'forget': 6,", output)) == 2


def nulls_are_null(output: str, folder: Path) -> bool:
    """`system: null` and `attention: null` in the printed configuration."""
    return all(
        re.search(rf"{name}: null$", output, flags=re.MULTILINE) for name in ("system", "attention")
    )


def a_ramp_stays_a_ramp(output: str, folder: Path) -> bool:
    """64 levels of grey, at most one of them white; or the file is named."""
    return re.search(r"levels 64 white [01] of 64", output) is not None or ".png" in output


def val_is_read(output: str, folder: Path) -> bool:
    """`val/` is read as the test set, so that the fraction of the second command is refused."""
    return exit_codes(output)[0] == 0 and "val is the test set" in output


def a_class_is_named(output: str, folder: Path) -> bool:
    """The class is taken by its name, or the message lists names beside numbers."""
    return succeeds(output, folder) or refuses("cat", "0")(output, folder)


def scores_are_one(output: str, folder: Path) -> bool:
    """ROUGE-L of equal texts is 1."""
    return "[1.0, 1.0, 1.0, 1.0]" in output


def texts_are_equal(output: str, folder: Path) -> bool:
    """Our text ends where transformers' text ends."""
    texts = dict(re.findall(r"^(mu|transformers) +(.*)$", output, flags=re.MULTILINE))
    return texts["mu"] == texts["transformers"]


def tables_are_read(output: str, folder: Path) -> bool:
    """Both tables are read; the second run is for the folder of the first, so it may be refused."""
    return "questions.parquet: rc 0" in output and (
        "saved: rc 0" in output or "holds another run" in output
    )


def plain_questions_are_measured(output: str, folder: Path) -> bool:
    """Each suite measures, or says which option leaves out what it cannot."""
    return (succeeds(output, folder) and "Probability" in output) or "P/" in output


def the_truth_ratio_is_undefined(output: str, folder: Path) -> bool:
    """TR/retain_perturbed is not 1 for a ruined model."""
    line = next(line for line in output.splitlines() if line.startswith("TR/retain"))
    value = re.search(r"\d+\.\d+", line)
    return value is None or float(value.group()) < 0.99


def the_option_reaches_both_suites(output: str, folder: Path) -> bool:
    """Both suites name the oracle, or the command says which one it reaches."""
    return len(re.findall(r"oracle: /", output)) == 2 or "reaches" in output


def the_readme_names_options_that_exist(output: str, folder: Path) -> bool:
    """README names no `--suite.` option, or it works."""
    return "--suite." not in output.split("rc ")[0].split("mu test")[0] or succeeds(output, folder)


def the_scores_or_the_setting(output: str, folder: Path) -> bool:
    """`mu validate` prints scores or the setting that switches them off."""
    return "curves" in output or "limit_val_batches" in output


def adapter_config_is_of_peft(output: str, folder: Path) -> bool:
    """No key of ours, no warning of PEFT's."""
    return "mu_" not in output and "unexpected keyword" not in output.lower()


def works_from_elsewhere(output: str, folder: Path) -> bool:
    """Test from another directory and export after the base has moved."""
    return exit_codes(output) == [0, 0]


def a_single_file_can_be_written(output: str, folder: Path) -> bool:
    """`mu export --help` names the single file."""
    return "found: 0" in output


def a_trial_run_names_no_measurement(output: str, folder: Path) -> bool:
    """The message of the trial run does not name `mu test --run`."""
    return "measure it" not in output


RIGHT: dict[str, Callable[[str, Path], bool]] = {
    "r01": stale_results_are_named,
    "r03": another_split_is_refused,
    "r05": ids_are_text,
    "r06": nulls_are_null,
    "r09": a_ramp_stays_a_ramp,
    "r11": either(succeeds, val_is_read, refuses("rename val")),
    "r13": refuses("label", "num_classes"),
    "r15": refuses("[N, C, H, W]", "[N, H, W, C]"),
    "r16": a_class_is_named,
    "r17": scores_are_one,
    "r18": texts_are_equal,
    "r20": either(succeeds, refuses("template.system")),
    "r21": plain_questions_are_measured,
    "r22": the_truth_ratio_is_undefined,
    "r23": the_option_reaches_both_suites,
    "r24": the_readme_names_options_that_exist,
    "r25": the_scores_or_the_setting,
    "r26": either(succeeds, refuses("backbone.attention")),
    "r27": adapter_config_is_of_peft,
    "r28": works_from_elsewhere,
    "r30": either(succeeds, refuses("Conv1D")),
    "r32": either(succeeds, refuses("messages")),
    "r33": tables_are_read,
    "r36": either(succeeds, refuses("fp16")),
    "r38": succeeds,
    "r40": succeeds,
    "r42": refuses("circle, star"),
    "r44": succeeds,
    "r45": a_single_file_can_be_written,
    "r47": a_trial_run_names_no_measurement,
}


def prepared_case(case: Path, folder: Path) -> Path:
    """A copy of the case with the modules' present names."""
    copy = folder / case.name
    shutil.copytree(case, copy)
    for path in copy.iterdir():
        if path.suffix in (".py", ".sh", ".yaml"):
            text = path.read_text(encoding="utf-8")
            for before, after in RENAMES.items():
                text = re.sub(rf"\b{re.escape(before)}\b", after, text)
            path.write_text(text, encoding="utf-8")
    return copy


@pytest.mark.data
@pytest.mark.parametrize("name", RIGHT)
def test_the_case_is_right(name: str, tmp_path: Path) -> None:
    """Needs `../shared/cases` beside the repository."""
    cases = sorted(CASES.glob(f"{name}-*"))
    if not cases:
        pytest.skip(f"{CASES} holds no case {name}")
    case = prepared_case(cases[0], tmp_path)
    output_folder = tmp_path / "out"
    output_folder.mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        "PATH": path,
        "OUT": str(output_folder),
        "PYTHON": sys.executable,
        "COLUMNS": "200",
    }
    done = subprocess.run(
        ["sh", str(case / "run.sh")],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert TRACEBACK not in done.stdout, done.stdout
    assert RIGHT[name](done.stdout, output_folder), done.stdout


@pytest.mark.data
def test_every_case_has_a_check() -> None:
    """Needs `../shared/cases` beside the repository."""
    if not CASES.is_dir():
        pytest.skip(f"{CASES} is not here")
    assert {case.name.split("-")[0] for case in CASES.iterdir() if case.is_dir()} == set(RIGHT)
