"""Detect the format of a file, and check all of it before anything is stored."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import IO

from assent.errors import AssentError, did_you_mean
from assent.formats import Format, Row
from assent.formats.files.annotation import parse_scale
from assent.formats.files.arrow import is_arrow
from assent.formats.files.columns import drop_keys, looks_like_judgement, meta_keys
from assent.formats.files.encoding import convert_to_utf8, require_utf8
from assent.formats.files.fields import EMPTY_VALUES
from assent.formats.files.hub import is_hub_name, locate_on_hub
from assent.formats.files.results import count_rows
from assent.formats.files.rows import FileLayout, RawRow, detect_layout, iter_location, split_names
from assent.formats.files.splits import Location, locate
from assent.registry import names, resolve

FOLDER = "formats"
FORMATS: dict[str, Format] = {name.replace("_", "-"): resolve(FOLDER, name)() for name in names(FOLDER)}
"""The formats by the names of the command line."""
SNIFF_ROWS = 20
"""Good rows whose keys decide the format."""
TABLE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True)
class DetectedFile:
    """A file whose format is known."""

    location: Location
    """The files to read; of a pipe, a copy."""
    format: str
    layout: FileLayout
    reader: Format
    ignore: tuple[str, ...] = ()
    num_rows: int = 0
    """Good and broken rows."""
    unread_counts: Counter[str] = field(default_factory=Counter)
    """Rows with a value, by keys that are not read."""
    meta_counts: Counter[str] = field(default_factory=Counter)
    """Rows with a value, by keys that the prompt's meta keeps, unless they repeat a response."""
    copied_file: IO[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.location.name

    def iter_rows(self) -> Iterator[RawRow]:
        """Yield the rows without the keys to ignore."""
        for line in iter_location(self.location, self.layout):
            if self.ignore and line.row is not None:
                line = line._replace(row=drop_keys(line.row, self.ignore))
            yield line


def sniff(
    path: str | Path, format: str = "auto", scale: str = "", encoding: str = "utf-8", ignore: Collection[str] = ()
) -> DetectedFile:
    """Detect how to read a file, and read through it before anything of it is stored.

    Args:
        format: a name in `FORMATS`, or `auto`: the keys of the first good rows decide.
        scale: of ratings, such as `1-5`, for formats that do not hold it.
        ignore: columns to leave out; `messages.KEY` for a key of messages.

    Raises:
        AssentError: the file cannot be read, is empty, has another encoding or format, or holds judgements that its
            format does not read.
    """
    location = locate_on_hub(path) if is_hub_name(path) else locate(Path(path))
    if format not in (*FORMATS, "auto"):
        raise AssentError(f"no format '{format}'{did_you_mean(format, FORMATS)}")
    copied_file = _copy(location.paths[0], encoding)
    if copied_file:
        location = location._replace(paths=(Path(copied_file.name),))
    layout = _find_layout(location, FORMATS.get(format))
    if splits := split_names(location.paths[0], layout):
        location = location.choose(splits, Path(path).parent if location.split else path)
    elif location.split and not location.splits:
        raise AssentError(f"{Path(path).parent} is a file without splits: name it alone")
    unknown = DetectedFile(location, format, layout, FORMATS["events"], tuple(ignore))
    format = _detect_format(path, unknown.iter_rows(), layout, format)
    reader = _with_scale(format, scale) if scale else FORMATS[format]
    survey = _Survey(path, format, reader, ignore)
    for line in iter_location(location, layout):
        survey.add(line)
    survey.check()
    return DetectedFile(
        location,
        format,
        layout,
        reader,
        tuple(ignore),
        survey.num_rows,
        survey.unread_counts,
        survey.meta_counts,
        copied_file,
    )


def _copy(path: Path, encoding: str) -> IO[bytes] | None:
    """Return a copy of a pipe, which cannot be read twice, or of a file in another encoding; None if none is needed."""
    has_other_encoding = encoding.lower().replace("_", "-") not in ("utf-8", "utf8") and not is_arrow(path)
    if path.is_dir() or not path.exists() or (path.is_file() and not has_other_encoding):
        return None
    copied_file = tempfile.NamedTemporaryFile()  # noqa: SIM115 (it exists as long as its `DetectedFile`)
    if has_other_encoding:
        convert_to_utf8(path, path.name, encoding, copied_file)
    else:
        with path.open("rb") as pipe:
            shutil.copyfileobj(pipe, copied_file)
    copied_file.flush()
    return copied_file


def _find_layout(location: Location, wanted: Format | None) -> FileLayout:
    path = location.paths[0]
    if is_arrow(path):
        return "arrow"
    require_utf8(path, location.name)
    has_table_suffix = location.name.lower().removesuffix(".gz").endswith(TABLE_SUFFIXES)
    is_table = has_table_suffix if wanted is None or wanted.is_tabular else wanted.shape == "table"
    return detect_layout(path, is_table)


def _with_scale(format: str, scale: str) -> Format:
    parse_scale(scale)
    reader = FORMATS[format]
    if "scale" not in [setting.name for setting in fields(reader)]:  # type: ignore[arg-type]  # a dataclass
        raise AssentError(f"--scale does not apply to {format}: leave it out")
    return replace(reader, scale=scale)  # type: ignore[type-var]  # a dataclass


def _detect_format(path: str | Path, lines: Iterable[RawRow], layout: FileLayout, wanted: str) -> str:
    """Return the wanted format, or the one that most of the first good rows have."""
    candidates = _candidates(layout)
    first_broken: RawRow | None = None
    first_keys: str | None = None
    votes: Counter[str] = Counter()
    for line in lines:
        if line.row is None:
            first_broken = first_broken or line
            continue
        if wanted != "auto":
            return wanted
        if first_keys is None:
            first_keys = ", ".join(line.row) or "no keys"
        if name := match_format(line.row, candidates):
            votes[name] += 1
        if votes.total() >= SNIFF_ROWS:
            break
    if first_keys is None and first_broken is None:
        raise AssentError(f"{path} is empty")
    if first_keys is None and first_broken is not None:
        content = "no row under its header" if layout == "table" else "no JSON object"
        raise AssentError(f"{path} holds {content}; first {first_broken.location}: {first_broken.reason}")
    if not votes:
        raise AssentError(f"{path}: no format has rows of {first_keys}; known: {', '.join(candidates)}")
    return votes.most_common(1)[0][0]


def _candidates(layout: FileLayout) -> dict[str, Format]:
    is_table = layout == "table"
    return {
        name: reader
        for name, reader in FORMATS.items()
        if (reader.shape == "table") == is_table or (is_table and reader.is_tabular)
    }


def match_format(row: Row, candidates: dict[str, Format]) -> str:
    """Return the candidate with the highest score for a row, the first of equals; empty: none matches."""
    scores = {name: reader.match_score(row) for name, reader in candidates.items()}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] else ""


class _Survey:
    """The keys of all rows of a file, which decide whether it can be imported."""

    def __init__(self, path: str | Path, format: str, reader: Format, ignore: Collection[str]) -> None:
        self.num_rows = 0
        self.unread_counts: Counter[str] = Counter()
        self.meta_counts: Counter[str] = Counter()
        self._path = path
        self._format = format
        self._reader = reader
        self._ignore = ignore
        self._columns: dict[str, None] = {}
        self._keeps_judgement = False
        self._judgement_counts: Counter[str] = Counter()
        self._ignored_keys: set[str] = set()
        self._has_sides = {"chosen", "rejected"} <= reader.known_keys or reader.shape == "table"

    def add(self, line: RawRow) -> None:
        """Count a row and its keys.

        Raises:
            AssentError: rows of the file would be misread.
        """
        self.num_rows += 1
        if line.row is None:
            return
        row = drop_keys(line.row, self._ignore)
        ignored = {key: line.row.get(key) for key in self._ignore if drop_keys(line.row, (key,)) != line.row}
        self._ignored_keys.update(ignored)
        self._columns.update(dict.fromkeys(row))
        self._reader.require_unambiguous(row)
        try:
            unread = self._reader.unread_fields(row)
        except AssentError:
            return  # the row is skipped for the same reason
        self._keeps_judgement |= self._reader.keeps_judgement(row)
        self.unread_counts.update(
            key for key, value in ignored.items() if value not in EMPTY_VALUES or key not in line.row
        )
        filled = {key: value for key, value in unread.items() if value not in EMPTY_VALUES}
        in_meta = meta_keys(self._reader, row, unread).keys() - set(self._ignore)
        self.meta_counts.update(key for key in filled if key in in_meta)
        self.unread_counts.update(key for key in filled if key not in in_meta)
        harmless = {*self._reader.fact_keys, *self._reader.discarded_keys(row)}
        self._judgement_counts.update(
            key
            for key, value in filled.items()
            if key not in harmless and looks_like_judgement(key, value, self._has_sides)
        )

    def check(self) -> None:
        """Refuse unknown keys to ignore, and judgements that would be lost.

        Raises:
            AssentError: there are such keys.
        """
        counted = self.unread_counts.keys() | self.meta_counts.keys()
        if unknown := [key for key in self._ignore if key not in counted and key not in self._ignored_keys]:
            suggestion = did_you_mean(unknown[0], counted)
            raise AssentError(f"{self._path}: no key '{unknown[0]}' to ignore{suggestion}")
        lost = {key: count for key, count in self._judgement_counts.items() if key not in self._ignore}
        if lost:
            keys = ", ".join(f"'{key}' ({count_rows(count)})" for key, count in lost.items())
            if not self._keeps_judgement:
                raise AssentError(
                    f"{self._path}: {self._format} does not read {keys}, which look like judgements or deletions, and "
                    f"keeps no judgement itself; the columns are {', '.join(self._columns)}: rename them as "
                    "docs/formats.md says, name another --format, or remove those that are no judgement"
                )
            to_ignore = ",".join({**dict.fromkeys(self._ignore), **self._judgement_counts})
            raise AssentError(
                f"{self._path}: {self._format} does not read {keys}, which look like judgements or deletions: "
                f"rename or remove them, name another --format, or import the rest with --ignore {to_ignore}"
            )
