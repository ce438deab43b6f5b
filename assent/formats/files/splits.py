"""Find the files of a path: one file, a folder of shards, or one split of either."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from assent.errors import AssentError

SPLIT_NAMES = "train|test|validation|valid|val|dev|eval"
SPLIT_WORD = rf"(?:{SPLIT_NAMES})(?:[-_][a-z_]*[a-z])?(?![a-z])"
SPLIT = re.compile(SPLIT_WORD)
"""A split at the beginning of the name of a shard."""
INNER_SPLIT = re.compile(rf"(?<=[-_. ])(?:{SPLIT_NAMES})(?![a-z])")
"""A split as a word later in the name of a shard, the last of which counts: `prefs_train-00000`."""
SPLITS_OBJECT = re.compile(rb"\{\s*\"" + SPLIT_WORD.encode() + rb"\"\s*:\s*\[")
"""The beginning of a JSON object of splits."""

ARROW_SUFFIXES = (".parquet", ".arrow")
DATA_SUFFIXES = (*ARROW_SUFFIXES, ".jsonl", ".json", ".csv", ".tsv")
"""Endings of files with rows; the last four may also be gzipped."""
KINDS = "Parquet, Arrow, JSON or tables"


class Location(NamedTuple):
    """The files of a data set or of one of its splits."""

    name: str
    """The name under which its rows are reported."""
    paths: tuple[Path, ...]
    split: str = ""
    splits: tuple[str, ...] = ()
    """All splits that exist; empty: the data set is not split."""
    before_split: str = ""
    """What stands before the split in the path to name another; empty: the name's beginning."""

    def __str__(self) -> str:
        """Return which of several splits is read."""
        if len(self.splits) < 2:
            return ""
        alternative = next(split for split in self.splits if split != self.split)
        path = (self.before_split or self.name.removesuffix(self.split)) + alternative
        return f"split {self.split} of {', '.join(self.splits)}; name {path} for another"

    def choose(self, splits: Iterable[str], path: Path | str, separator: str = "/") -> "Location":
        """Return one split of a file or folder: the named one, the only one, or `train`.

        Args:
            path: as the user may name it, before the separator and the split.

        Raises:
            AssentError: none of these exists.
        """
        names = tuple(splits)
        split = self.split or (names[0] if len(names) == 1 else "train")
        if split not in names:
            first = f"{path}{separator}{names[0]}"
            raise AssentError(f"{path} has the splits {', '.join(names)}: name one of them, such as {first}")
        name = f"{self.name}/{split}" if split else self.name
        return self._replace(name=name, split=split, splits=names)


def locate(path: Path) -> Location:
    """Return the files of a path; it may end with the name of a split, as in `folder/test` and `splits.json/test`.

    Raises:
        AssentError: a folder without data, or with splits of which none is `train`.
    """
    parent = path.parent
    if parent.is_file():
        return Location(parent.name, (parent,), path.name)
    if path.is_dir() and not (parent / "dataset_dict.json").is_file():
        return _choose_shards(path, _find_shards(path), "")
    if (path.is_dir() or not path.exists()) and parent.is_dir() and path.name in (shards := _find_shards(parent)):
        return _choose_shards(parent, shards, path.name)
    return Location(path.name, (path,))


def group_by_split(files: Iterable[str]) -> dict[str, list[str]]:
    """Return the files with rows by their split; the names of a split are in the file's name, or else in its folder's.

    Parquet and Arrow come first: where there are such files, others are not data. Files without a split are under an
    empty name.
    """
    by_suffix: dict[bool, list[str]] = {True: [], False: []}
    for file in sorted(files):
        if file.removesuffix(".gz").endswith(DATA_SUFFIXES):
            by_suffix[file.endswith(ARROW_SUFFIXES)].append(file)
    splits: dict[str, list[str]] = {}
    for file in by_suffix[True] or by_suffix[False]:
        words = reversed(Path(file).parts)
        splits.setdefault(next(filter(None, map(_split_of, words)), ""), []).append(file)
    return splits


def is_split_name(name: str) -> bool:
    """Return whether a key of an object names a split."""
    return SPLIT.fullmatch(name) is not None


def is_splits_object(content: Any) -> bool:
    """Return whether the content of a JSON file is an object of splits, each a list of rows."""
    return isinstance(content, dict) and all(
        is_split_name(key) and isinstance(rows, list) for key, rows in content.items()
    )


def _choose_shards(folder: Path, shards: Mapping[str, tuple[Path, ...]], split: str) -> Location:
    if not shards:
        candidates = sorted(entry.name for entry in folder.iterdir() if entry.is_file() or _find_shards(entry))
        advice = f"name one of its files or folders, such as {folder / candidates[0]}" if candidates else "name a file"
        raise AssentError(f"{folder} is a folder without files of {KINDS}: {advice}")
    location = Location(folder.absolute().name, (), split).choose(shards, folder)
    return location._replace(paths=shards[location.split])


def _find_shards(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the files of each split; those of a folder without splits under an empty name."""
    if (saved := folder / "dataset_dict.json").is_file():
        return {split: _saved_files(folder / split) for split in _read_list(saved, "splits")}
    if (folder / "state.json").is_file():
        return {"": _saved_files(folder)}
    names = [entry.name for entry in folder.iterdir() if entry.is_file()] if folder.is_dir() else []
    shards = {
        split: tuple(folder / name for name in names_of_split)
        for split, names_of_split in group_by_split(names).items()
    }
    if len(shards) > 1 and "" in shards:
        raise AssentError(f"{folder} holds {shards[''][0].name} besides its splits: name one of its files")
    return shards or (_find_shards(folder / "data") if (folder / "data").is_dir() else {})


def _split_of(name: str) -> str:
    """Return the split in the name of a file or folder; empty: there is none."""
    match = SPLIT.match(name.lower())
    return match[0] if match else ["", *INNER_SPLIT.findall(Path(name).stem.lower())][-1]


def _saved_files(folder: Path) -> tuple[Path, ...]:
    """Return the files that `datasets` saved, in their order."""
    return tuple(folder / str(entry["filename"]) for entry in _read_list(folder / "state.json", "_data_files"))


def _read_list(path: Path, key: str) -> list[Any]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssentError(f"cannot read {path}: `datasets` did not write it ({type(error).__name__})") from error
