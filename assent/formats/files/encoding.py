"""Open files, gzipped or not, and check that they are UTF-8."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from assent.errors import AssentError

PIECE = 1 << 20
"""Bytes that are read together."""
WESTERN_FRACTION = 0.2
"""A file with a smaller fraction of letters beyond ASCII is likely Western European, if one byte is one letter."""


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked, after its byte-order mark.

    Raises:
        AssentError: it cannot be read.
    """
    try:
        with path.open("rb") as packed:
            is_gzip = packed.read(2) == b"\x1f\x8b"
            packed.seek(0)
            file = cast(BinaryIO, gzip.GzipFile(fileobj=packed)) if is_gzip else packed
            rewind(file)
            yield file
    except OSError as error:
        raise AssentError(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise AssentError(f"cannot read {path}: {error}") from error


def rewind(file: BinaryIO) -> None:
    """Go to the beginning of a file, after its byte-order mark."""
    file.seek(0)
    if file.read(3) != codecs.BOM_UTF8:
        file.seek(0)


def require_utf8(path: Path, name: str) -> None:
    """Refuse the whole of a file in another encoding: otherwise exactly the rows with accents would be skipped.

    Raises:
        AssentError: it is not UTF-8; the message names the likely encoding.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    piece = b""
    with open_file(path) as file:
        try:
            while piece := file.read(PIECE):
                decoder.decode(piece)
                line += piece.count(b"\n")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            # `error.object` begins with the bytes that the decoder kept of the piece before.
            line += error.object.count(b"\n", 0, error.start) if piece else 0
            rewind(file)
            likely = _likely_encoding(file.read(PIECE))
            raise AssentError(_not_utf8(name, line, error.object[error.start], likely)) from None


def _not_utf8(name: str, line: int, byte: int, likely: str) -> str:
    if likely.startswith("utf-16"):
        advice = "save it as UTF-8 (a spreadsheet calls that 'CSV UTF-8')"
        return f"{name} is UTF-16: {advice}, or import it with --encoding {likely}"
    fault = f"{name} is not UTF-8 (byte 0x{byte:02x} in line {line})"
    if not likely:
        names = "windows-1251, gb18030, shift_jis"
        return f"{fault}: save it as UTF-8, or import it with --encoding and its name ({names})"
    return f"{fault}, likely {likely}: import it with --encoding {likely}, or convert it: iconv -f {likely} -t utf-8"


def _likely_encoding(head: bytes) -> str:
    """Return UTF-16 or windows-1252 if the bytes look like one of them, else an empty text."""
    if head.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE)):
        return "utf-16"
    num_beyond_ascii = sum(byte > 127 for byte in head)
    num_letters = sum(byte > 127 or chr(byte).isalpha() for byte in head)
    unused = {0x81, 0x8D, 0x8F, 0x90, 0x9D}
    is_western = num_beyond_ascii < WESTERN_FRACTION * num_letters and unused.isdisjoint(head) and 0 not in head
    return "windows-1252" if is_western else ""


def convert_to_utf8(path: Path, name: str, encoding: str, out: IO[bytes]) -> None:
    """Write a file, unpacked, as UTF-8.

    Raises:
        AssentError: the encoding is unknown, or the file is not in it.
    """
    try:
        with open_file(path) as file:
            source = io.TextIOWrapper(file, encoding, newline="")
            try:
                while piece := source.read(PIECE):
                    out.write(piece.encode())
            finally:
                source.detach()
    except LookupError:
        raise AssentError(f"no encoding '{encoding}': name one such as utf-8, windows-1252 or utf-16") from None
    except UnicodeError as error:
        raise AssentError(f"{name} is not {encoding}: {error}") from None
