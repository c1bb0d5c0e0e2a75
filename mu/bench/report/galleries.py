"""Galleries of a report: images and texts of all models side by side.

They are listed in `media/media.json` of each run folder. The file is a list; each entry describes
one file beside it. `group` says what it shows, the others are optional:

* an image: `{"file": "erased.png", "title": "...", "group": "erased", "rows": [labels], "columns":
  [labels]}`;
* text: `{"file": "examples.json", "kind": "text", "title": "...", "group": "forget"}`, and that
  file is a list of
  `{"prompt": "...", "answer": "...", "truth": "..."}`, of which `truth` is optional.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu.bench.report.runs import RunEntry
from mu.bench.report.summary import Summary
from mu.utils.errors import InputError
from mu.utils.files import read_json

GROUPS = {"erased": "What was erased", "kept": "What was to be kept", "attack": "Under attack"}
"""Headings of the groups that come first, in this order; others follow by their own name."""

_PNG = b"\x89PNG\r\n\x1a\n"
# pixels of the page for one tile of a grid, and for a letter of a label, at least
_TILE = 44
_LETTER = 6
_SMOOTH = 640  # width in pixels from which an image is shrunk rather than enlarged


@dataclass(frozen=True)
class Picture:
    """Image of one model as a data URI, with its size in pixels and labels of rows and columns."""

    method: str
    title: str
    source: str
    width: int
    height: int
    rows: list[str]
    columns: list[str]

    @property
    def pixelated(self) -> bool:
        """Whether it is small enough to be shown enlarged."""
        return self.width < _SMOOTH


@dataclass(frozen=True)
class Gallery:
    """Images of one group, one of every model."""

    heading: str
    title: str
    seed: str
    pictures: list[Picture]

    @property
    def width(self) -> int:
        """Width of an image on the page in pixels, from its tiles and labels, in [200, 520]."""
        above, before = (
            [len(label) * _LETTER for picture in self.pictures for label in labels(picture)]
            for labels in (lambda picture: picture.columns, lambda picture: picture.rows)
        )
        tiles = max(len(picture.columns) or 3 for picture in self.pictures)
        return min(
            520,
            max(
                200,
                tiles * max(_TILE, min(90, max(above, default=0)))
                + min(120, max(before, default=0)),
            ),
        )

    def share(self, picture: Picture) -> float:
        """Width of a picture as a share of the widest, so that all are enlarged alike."""
        return round(picture.width / max(other.width for other in self.pictures), 4)


@dataclass(frozen=True)
class Examples:
    """Texts of one group: for each prompt the truth and every model's answer.

    An answer is None where the model was not asked.
    """

    heading: str
    title: str
    seed: str
    methods: list[str]
    rows: list[tuple[str, str, list[str | None]]]
    truth: bool


Key = tuple[str, str, int]
"""Medium, group, and index among the run's entries of that group."""

Entry = tuple[Path, dict[str, Any]]
"""File and description."""


def media(summary: Summary) -> tuple[list[Gallery], list[Examples]]:
    """Images and texts of one seed, side by side.

    The seed is that of the first run with media; a method without that seed shows its first run.

    Raises:
        InputError: when a media.json, or a file that it names, is missing or malformed.
    """
    with_media = [run for row in summary.rows for run in row.runs if _index(run).is_file()]
    if not with_media:
        return [], []
    label = with_media[0].label
    runs = {
        row.method: next((run for run in row.runs if run.label == label), row.runs[0])
        for row in summary.rows
    }
    seed = label if all(run.label == label for run in runs.values()) else ""
    by_method = {method: _entries(run) for method, run in runs.items()}
    galleries = []
    examples = []
    for key in _ordered_keys(by_method):
        entries = {method: of_run[key] for method, of_run in by_method.items() if key in of_run}
        medium, group, _ = key
        heading = GROUPS.get(group, group.capitalize())
        title = _common_title(entry["title"] for _, entry in entries.values())
        if medium == "text":
            examples.append(_examples(heading, title, seed, entries))
        else:
            pictures = [_picture(method, *entry) for method, entry in entries.items()]
            galleries.append(Gallery(heading, title, seed, pictures))
    return galleries, examples


def _index(run: RunEntry) -> Path:
    return run.folder / "media" / "media.json"


def _entries(run: RunEntry) -> dict[Key, Entry]:
    """File and description of each entry of a run's media.json."""
    index = _index(run)
    if not index.is_file():
        return {}
    raw = read_json(index)
    if not isinstance(raw, list) or not all(
        isinstance(entry, Mapping) and isinstance(entry.get("file"), str) for entry in raw
    ):
        raise InputError(f"{index} is not a list of entries with a file.")
    entries: dict[Key, Entry] = {}
    for entry in raw:
        file = index.parent / entry["file"]
        if file.parent != index.parent or not file.is_file():
            raise InputError(f"{index} names {entry['file']!r}, which is no file beside it.")
        medium = str(entry.get("kind") or "image")
        group = str(entry.get("group") or "examples")
        if medium not in ("image", "text"):
            raise InputError(f"{index} has an entry of kind {medium!r}; it is image or text.")
        description = {
            "title": str(entry.get("title") or ""),
            **{name: [str(v) for v in entry.get(name) or []] for name in ("rows", "columns")},
        }
        count = sum(key[:2] == (medium, group) for key in entries)
        entries[medium, group, count] = (file, description)
    return entries


def _ordered_keys(by_method: Mapping[str, Mapping[Key, Entry]]) -> list[Key]:
    """Keys of all methods: the groups of `GROUPS` first, then by first appearance."""
    keys = list(dict.fromkeys(key for entries in by_method.values() for key in entries))
    groups = list(dict.fromkeys([*GROUPS, *(group for _, group, _ in keys)]))
    return sorted(keys, key=lambda key: (groups.index(key[1]), key[2]))


def _common_title(titles: Iterable[str]) -> str:
    """The title that all have; empty where they differ, because each is shown at its own image."""
    distinct = list(dict.fromkeys(titles))
    return distinct[0][:1].upper() + distinct[0][1:] if len(distinct) == 1 else ""


def _picture(method: str, file: Path, entry: Mapping[str, Any]) -> Picture:
    content = file.read_bytes()
    if not content.startswith(_PNG) or len(content) < 24:
        raise InputError(f"{file} is not a PNG image, which is what a report can show.")
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Picture(method, entry["title"], source, width, height, entry["rows"], entry["columns"])


def _examples(heading: str, title: str, seed: str, entries: Mapping[str, Entry]) -> Examples:
    """Prompts in the order of their first appearance; a repeated prompt has several rows."""
    answers: dict[str, dict[tuple[str, int], str]] = {}
    truths: dict[tuple[str, int], str] = {}
    for method, (file, _) in entries.items():
        answers[method] = {}
        for row in _text_rows(file):
            repeats = sum(prompt == row["prompt"] for prompt, _ in answers[method])
            question = (row["prompt"], repeats)
            answers[method][question] = row["answer"]
            truths[question] = truths.get(question) or str(row.get("truth") or "")
    rows = [
        (question[0], truth, [texts.get(question) for texts in answers.values()])
        for question, truth in truths.items()
    ]
    return Examples(heading, title, seed, list(entries), rows, any(truths.values()))


def _text_rows(file: Path) -> list[dict[str, Any]]:
    rows = read_json(file)
    sound = isinstance(rows, list) and all(
        isinstance(row, Mapping)
        and all(isinstance(row.get(name), str) for name in ("prompt", "answer"))
        for row in rows
    )
    if not sound:
        raise InputError(f"{file} is not a list of examples, each with a prompt and an answer.")
    return rows
