"""Write assent/data/prices.csv.gz: the adjusted closes of four stocks, from the wheel of bokeh_sampledata.

Run: pip download --no-deps bokeh_sampledata==2026.1 && python experiments/prices.py bokeh_sampledata-2026.1-*.whl
"""

import csv
import gzip
import hashlib
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile

FILE = Path(__file__).parent.parent / "assent" / "data" / "prices.csv.gz"
SOURCE = "bokeh_sampledata/_data/stocks.csv.gz"
SHA256 = "5abadf99b2d394f920120a27de6f0df129859d71d4cfb0bf661bcc99446ab1fd"
TICKERS = ("AAPL", "GOOG", "IBM", "MSFT")
DIGITS = 6
"""Significant digits of a close: an error of at most 5e-6, far below the cost of a trade."""


def main(wheel: Path) -> None:
    """Write the file from a wheel.

    Raises:
        SystemExit: its prices are not those that the licence note names.
    """
    with ZipFile(wheel) as archive:
        source = archive.read(SOURCE)
    digest = hashlib.sha256(source).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{SOURCE} has SHA-256 {digest}, not {SHA256}: use bokeh_sampledata 2026.1")
    FILE.write_bytes(compress(rows(gzip.decompress(source).decode())))


def rows(text: str) -> list[tuple[str, str, str]]:
    """Return (date, ticker, close) by ticker and date, from the CSV file of bokeh_sampledata."""
    known = [row for row in csv.DictReader(io.StringIO(text)) if row["Ticker"] in TICKERS]
    closes = [(row["Date"], row["Ticker"], f"{float(row['Adj Close']):.{DIGITS}g}") for row in known]
    return sorted(closes, key=lambda row: (row[1], row[0]))


def compress(rows: Iterable[tuple[str, str, str]]) -> bytes:
    """Return rows as a compressed CSV file without a time, so that the same rows give the same file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("date", "ticker", "close"))
    writer.writerows(rows)
    return gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
