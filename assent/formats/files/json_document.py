"""Stream the rows of a JSON document with ijson; parse the documents that only Python's parser accepts as a whole."""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal

import ijson

from assent.formats.files.encoding import PIECE, rewind
from assent.formats.files.splits import is_split_name, is_splits_object

DocumentLayout = Literal["lines", "array", "splits", "document"]
"""The layout of a file that begins like a document: an array and splits are streamed, other documents are not."""
MAX_DEPTH = 500
"""Nesting of streamed documents: Python's parser stops at about 1,000, and ijson's memory grows with its square."""
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
SURROGATE_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]")
PYTHON_ONLY_ERRORS = ("lexical error", "overflow")
"""Errors of ijson where Python's parser may have none: NaN, infinities, numbers of more than 64 bits."""


def detect_document(file: BinaryIO) -> DocumentLayout:
    """Return the layout of a document, which is read to its end; lines if it is not one document."""
    try:
        layout = _detect_streamed(file)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        is_python_only = isinstance(error, UnicodeDecodeError) or any(word in str(error) for word in PYTHON_ONLY_ERRORS)
        layout = "document" if is_python_only else "lines"
    return "lines" if layout == "document" and not _is_json(file) else layout


def _detect_streamed(file: BinaryIO) -> DocumentLayout:
    depth = 0
    is_array = is_splits = True
    for event, value in ijson.basic_parse(file, buf_size=PIECE, use_float=True):
        if depth == 1:
            is_split = event == "map_key" and is_split_name(value)
            is_splits = is_splits and (is_split or event in ("start_array", "end_map"))
        if event in ("start_array", "start_map"):
            if depth == 0:
                is_array = event == "start_array"
            depth += 1
            if depth > MAX_DEPTH:
                return "document"
        elif event in ("end_array", "end_map"):
            depth -= 1
    if not (is_array or is_splits) or _has_lone_surrogate(file):
        return "document"
    return "array" if is_array else "splits"


def _has_lone_surrogate(file: BinaryIO) -> bool:
    """Return whether a file has half of an escaped pair, which ijson would replace by a question mark."""
    rewind(file)
    tail = b""
    while piece := file.read(PIECE):
        data = tail + piece
        end = max(data.rfind(b'"'), data.rfind(b" ")) + 1  # not within an escape
        tail = data[end:]
        if len(SURROGATE.findall(data, 0, end)) != 2 * len(SURROGATE_PAIR.findall(data, 0, end)):
            return True
    return False


def _is_json(file: BinaryIO) -> bool:
    rewind(file)
    try:
        json.load(file)
    except (ValueError, RecursionError):
        return False
    return True


def read_split_names(file: BinaryIO, layout: DocumentLayout) -> list[str]:
    """Return the names of the splits of a document; none if it is not split."""
    if layout == "splits":
        depth = 0
        names: list[str] = []
        for event, value in ijson.basic_parse(file, buf_size=PIECE, use_float=True):
            depth += event in ("start_array", "start_map")
            depth -= event in ("end_array", "end_map")
            if depth == 1 and event == "map_key":
                names.append(value)
        return names
    content: Any = json.load(file) if layout == "document" else None
    return list(content) if is_splits_object(content) else []


def iter_values(file: BinaryIO, layout: DocumentLayout, split: str = "") -> Iterator[Any]:
    """Yield the values of an array, or of one split; another document is one value itself."""
    if layout != "document":
        yield from ijson.items(file, f"{split}.item" if split else "item", buf_size=PIECE, use_float=True)
        return
    content = json.load(file)
    if split:
        content = content[split]
    yield from content if isinstance(content, list) else [content]
