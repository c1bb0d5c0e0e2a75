"""Run folders, checkpoints, results and exports that cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mu.utils.fingerprint import digest
from mu.utils.run_config import write_config
from tests.bad_input.conftest import Refuse, table
from tests.cli.conftest import FIT

TEST = "test --run run"
RESUME = "fit --run run --resume --trainer.max_epochs 2"
EXPORT = "export run out"
REPORT = "report run"


def edit_json(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change of a JSON file of a run."""

    def apply(run: Path) -> None:
        content = json.loads((run / name).read_text())
        changed = change(content)
        (run / name).write_text(json.dumps(content if changed is None else changed))

    return apply


def edit_config(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change of a run's config.yaml, with a hash that fits."""

    def apply(run: Path) -> None:
        content = yaml.safe_load((run / "config.yaml").read_text())
        changed = change(content)
        write_config(run, yaml.safe_dump(content if changed is None else changed), Path.cwd())

    return apply


def edit_results(change: Callable[[Any], Any], measurement: bool = False) -> Callable[[Path], None]:
    """Change of a model in a run's results.json, or of its first measurement, with a hash."""

    def apply(run: Path) -> None:
        content = json.loads((run / "results.json").read_text())
        (model,) = content["models"]
        change(model["measurements"][0] if measurement else model)
        del content["hash"]
        (run / "results.json").write_text(json.dumps({"hash": digest(content), **content}))

    return apply


def edit_checkpoint(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change of a run's last checkpoint."""

    def apply(run: Path) -> None:
        file = run / "checkpoints" / "last.ckpt"
        content = torch.load(file, weights_only=True)
        changed = change(content)
        torch.save(content if changed is None else changed, file)

    return apply


def text(name: str, content: str) -> Callable[[Path], None]:
    """Other content of a file of a run."""
    return lambda run: (run / name).write_text(content) and None


def cut(name: str, share: float) -> Callable[[Path], None]:
    """A file of a run cut off."""

    def apply(run: Path) -> None:
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: int(len(content) * share)])

    return apply


def replaced(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """A file of a run replaced by a folder, a pipe or a link."""

    def apply(run: Path) -> None:
        (run / name).unlink()
        make(run / name)

    return apply


def removed(name: str) -> Callable[[Path], None]:
    """A file of a run removed."""
    return lambda run: (run / name).unlink()


LAST = "checkpoints/last.ckpt"


def without_zip_entry(run: Path) -> None:
    """The checkpoint without the first of its tensors."""
    source = run / LAST
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(run / "new", "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith("data/0"):
                new.writestr(entry, old.read(entry))
    shutil.move(run / "new", source)


FILES: list[tuple[str, str, Callable[[Path], None], str]] = []
for _command in (TEST, RESUME):
    _name = _command.split()[0]
    FILES += [
        (f"{_name}: no config", _command, removed("config.yaml"), "config.yaml"),
        (f"{_name}: empty config", _command, text("config.yaml", ""), "config.yaml was changed"),
        (
            f"{_name}: config of another seed",
            _command,
            edit_config(lambda c: c["model"]["init_args"].update(seed=5)),
            "of two different runs",
        ),
        (
            f"{_name}: config changed",
            _command,
            lambda run: (
                (run / "config.yaml").write_text(
                    (run / "config.yaml").read_text().replace("seed: 0", "seed: 1")
                )
                and None
            ),
            "config.yaml was changed",
        ),
        (f"{_name}: config no YAML", _command, text("config.yaml", "a: [1"), "not valid YAML"),
        (f"{_name}: config a list", _command, text("config.yaml", "- 1"), "not a configuration"),
        (f"{_name}: config twice", _command, text("config.yaml", "data: {}\ndata: {}"), "twice"),
        (f"{_name}: config pipe", _command, replaced("config.yaml", os.mkfifo), "config.yaml"),
        (f"{_name}: config folder", _command, replaced("config.yaml", Path.mkdir), "config.yaml"),
        (
            f"{_name}: config loop",
            _command,
            replaced("config.yaml", lambda file: file.symlink_to(file.name)),
            "config.yaml",
        ),
        (
            f"{_name}: method of config",
            _command,
            edit_config(lambda c: c["model"].update(class_path="os.system")),
            "os.system",
        ),
        (
            f"{_name}: optimizer of config",
            _command,
            edit_config(
                lambda c: c["model"]["init_args"]["optimizer"].update(class_path="builtins.eval")
            ),
            "builtins.eval",
        ),
        (
            f"{_name}: planted class in config",
            _command,
            edit_config(
                lambda c: c["model"]["init_args"]["optimizer"].update(class_path="planted.Opt")
            ),
            "planted.Opt",
        ),
        (
            f"{_name}: null in config",
            _command,
            edit_config(lambda c: c["model"]["init_args"].update(seed=None)),
            "model.seed is null",
        ),
        (f"{_name}: no checkpoint", _command, removed(LAST), "last.ckpt"),
        (f"{_name}: empty checkpoint", _command, text(LAST, ""), "last.ckpt"),
        (f"{_name}: text as checkpoint", _command, text(LAST, "hello"), "last.ckpt"),
        (f"{_name}: cut checkpoint", _command, cut(LAST, 0.5), "last.ckpt"),
        (f"{_name}: nearly whole checkpoint", _command, cut(LAST, 0.99), "last.ckpt"),
        (f"{_name}: tensor missing", _command, without_zip_entry, "last.ckpt"),
        (f"{_name}: checkpoint folder", _command, replaced(LAST, Path.mkdir), "last.ckpt"),
        (f"{_name}: checkpoint pipe", _command, replaced(LAST, os.mkfifo), "last.ckpt"),
        (
            f"{_name}: checkpoint is a list",
            _command,
            edit_checkpoint(lambda c: [1]),
            "checkpoint",
        ),
        (f"{_name}: checkpoint empty dict", _command, edit_checkpoint(lambda c: {}), "checkpoint"),
        (
            f"{_name}: no weights",
            _command,
            edit_checkpoint(lambda c: c.pop("state_dict") and None),
            "checkpoint",
        ),
        (
            f"{_name}: weights empty",
            _command,
            edit_checkpoint(lambda c: c.update(state_dict={})),
            "the checkpoint lacks",
        ),
        (
            f"{_name}: weight misshaped",
            _command,
            edit_checkpoint(
                lambda c: c["state_dict"].update(
                    {name: torch.zeros(1, 2, 3) for name in list(c["state_dict"])[:1]}
                )
            ),
            "the checkpoint does not fit",
        ),
        (
            f"{_name}: unknown weight",
            _command,
            edit_checkpoint(lambda c: c["state_dict"].update(nothing=torch.zeros(1))),
            "nothing",
        ),
        (
            f"{_name}: weights are numbers",
            _command,
            edit_checkpoint(lambda c: c.update(state_dict={"a": 3})),
            "checkpoint",
        ),
        (
            f"{_name}: weights are a list",
            _command,
            edit_checkpoint(lambda c: c.update(state_dict=[1])),
            "checkpoint",
        ),
        (
            f"{_name}: no record",
            _command,
            edit_checkpoint(lambda c: c.pop("mu") and None),
            "checkpoint",
        ),
        (
            f"{_name}: record is a number",
            _command,
            edit_checkpoint(lambda c: c.update(mu=3)),
            "checkpoint",
        ),
        (
            f"{_name}: split changed",
            _command,
            edit_json("split.json", lambda c: c.update(seed=9)),
            "split.json was changed",
        ),
        (f"{_name}: split cut", _command, cut("split.json", 0.5), "split.json"),
        (f"{_name}: split a list", _command, text("split.json", "[1]"), "split.json"),
        (f"{_name}: split no JSON", _command, text("split.json", "x"), "split.json"),
        (f"{_name}: split pipe", _command, replaced("split.json", os.mkfifo), "split.json"),
        (
            f"{_name}: split parts",
            _command,
            edit_json("split.json", lambda c: c.update(parts={"forget": "x"})),
            "split.json",
        ),
    ]
FILES += [
    ("resume: no split", RESUME, removed("split.json"), "split.json is missing"),
    ("resume: seed", RESUME + " --model.seed 5", lambda run: None, "model.seed 0, not 5"),
    (
        "resume: split",
        RESUME + " --data.selector.fraction 0.6",
        lambda run: None,
        "data.selector.fraction",
    ),
    ("resume: other method", RESUME + " --model SCRUB", lambda run: None, "backbone"),
    ("export: no checkpoint", EXPORT, removed(LAST), "last.ckpt"),
    ("export: cut checkpoint", EXPORT, cut(LAST, 0.5), "last.ckpt"),
    ("export: empty checkpoint", EXPORT, text(LAST, ""), "last.ckpt"),
    ("export: list", EXPORT, edit_checkpoint(lambda c: [1]), "last.ckpt"),
    ("export: no record", EXPORT, edit_checkpoint(lambda c: c.pop("mu") and None), "mu"),
    (
        "export: no specification",
        EXPORT,
        edit_checkpoint(lambda c: c["mu"].pop("spec") and None),
        "mu",
    ),
    (
        "export: specification text",
        EXPORT,
        edit_checkpoint(lambda c: c["mu"].update(spec="x")),
        "last.ckpt",
    ),
    (
        "export: planted method",
        EXPORT,
        edit_checkpoint(lambda c: c["mu"]["spec"].update(class_path="planted.Opt")),
        "planted.Opt",
    ),
    (
        "export: planted optimizer",
        EXPORT,
        edit_checkpoint(
            lambda c: c["mu"]["spec"]["init_args"].update(
                optimizer={"class_path": "planted.Opt", "init_args": {}}
            )
        ),
        "planted.Opt",
    ),
    (
        "export: builtin",
        EXPORT,
        edit_checkpoint(lambda c: c["mu"]["spec"].update(class_path="builtins.eval")),
        "builtins.eval",
    ),
    (
        "export: other argument",
        EXPORT,
        edit_checkpoint(lambda c: c["mu"]["spec"]["init_args"].update(nothing=3)),
        "nothing",
    ),
    (
        "export: weights empty",
        EXPORT,
        edit_checkpoint(lambda c: c.update(state_dict={})),
        "lacks",
    ),
    ("export: split changed", EXPORT, text("split.json", "{}"), "split.json"),
    ("export: results a list", EXPORT, text("results.json", "[1]"), "results.json"),
    ("export: missing run", "export nowhere out", lambda run: None, "nowhere"),
    ("export: onto a run", "export run run", lambda run: None, "run"),
    ("export: onto a file", "export run task.yaml", lambda run: None, "task.yaml"),
    ("export: below a file", "export run task.yaml/out", lambda run: None, "task.yaml"),
    ("export: long name", "export run " + "x" * 300, lambda run: None, "xxx"),
    ("export: edited", EXPORT + " --edited", lambda run: None, "edited"),
    ("export: adapter", EXPORT + " --adapter", lambda run: None, "adapter"),
    ("export: no folder", "export run", lambda run: None, "folder"),
    ("report: no folder", "report nowhere", lambda run: None, "there is no folder nowhere"),
    ("report: a file", "report task.yaml", lambda run: None, "task.yaml"),
    ("report: untested", REPORT, removed("results.json"), "no finished run"),
    ("report: results empty", REPORT, text("results.json", ""), "results.json"),
    ("report: results cut", REPORT, cut("results.json", 0.5), "results.json"),
    ("report: results null", REPORT, text("results.json", "null"), "results.json"),
    ("report: results a list", REPORT, text("results.json", "[]"), "results.json"),
    ("report: results number", REPORT, text("results.json", "3"), "results.json"),
    ("report: results deep", REPORT, text("results.json", "[" * 99999), "results.json"),
    (
        "report: results changed",
        REPORT,
        edit_json("results.json", lambda c: c["models"][0].update(task="other")),
        "results.json was changed",
    ),
    (
        "report: results of another format",
        REPORT,
        edit_json("results.json", lambda c: c.update(format=2)),
        "results.json",
    ),
    ("report: results pipe", REPORT, replaced("results.json", os.mkfifo), "no finished run"),
    *(
        (
            f"report: {key} is {value!r}",
            REPORT,
            edit_results(lambda c, key=key, value=value: c.update({key: value})),
            "results.json",
        )
        for key in ("task", "method", "measurements", "seeds", "hashes", "seconds", "facts")
        for value in (3, None, ["x"])
    ),
    *(
        (
            f"report: presentation is {value!r}",
            REPORT,
            edit_results(lambda c, value=value: c.update(presentation=value), True),
            "results.json",
        )
        for value in (3, None, {}, {"definitions": 3, "headline": 3, "trade_offs": 3})
    ),
    *(
        (
            f"report: a result with {change}",
            REPORT,
            edit_results(
                lambda c, change=change: c["results"].append({"metric": "x", **change}), True
            ),
            "results.json",
        )
        for change in ({}, {"value": "x"}, {"value": [1]}, {"value": 1, "nothing": 2})
    ),
    ("report: split changed", REPORT, text("split.json", "{}"), "split.json"),
    ("report: two folders", "report run run", lambda run: None, "--output"),
    ("report: output a file", "report run --output task.yaml", lambda run: None, "task.yaml"),
    ("test: no run", "test --run nowhere", lambda run: None, "no run folder nowhere"),
    ("test: run is a file", "test --run task.yaml", lambda run: None, "task.yaml"),
    ("test: resume", "test --run run --resume", lambda run: None, "--resume belongs to mu fit"),
    ("test: oracle", TEST + " --trainer.callbacks.nothing 3", lambda run: None, "nothing"),
    ("validate: no checkpoint", "validate --run run", removed(LAST), "last.ckpt"),
    ("predict: cut checkpoint", "predict --run run", cut(LAST, 0.5), "last.ckpt"),
    ("fit: another run", " ".join((*FIT, "--run run --model.seed 7")), lambda run: None, "run"),
]


@pytest.mark.parametrize(("command", "change", "words"), table(FILES, fast=16))
def test_run_folder_is_refused(
    refuse: Refuse,
    tmp_path: Path,
    run: Path,
    command: str,
    change: Callable[[Path], None],
    words: str,
) -> None:
    (tmp_path / "planted.py").write_text(
        "from pathlib import Path\nPath('imported').touch()\nclass Opt: pass\n"
    )
    change(run)
    refuse(command.split(), words)
    assert not (tmp_path / "imported").exists()
