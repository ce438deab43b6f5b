"""The docs are correct: commands parse, formats are read, metrics and objectives are explained, links work."""

import ast
import doctest
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from assent.cli import main
from assent.formats.files.importing import read_file
from assent.formats.files.sniffing import FORMATS
from assent.functional.calibration import Bin, Calibration
from assent.functional.decisions import Ceiling, Decisions
from assent.functional.length_control import LengthControlled
from assent.functional.overoptimization import CurvePoint, Fit
from assent.functional.statistics import Difference, Interval, WinRate
from assent.labelling.arena import PolicyRating
from assent.registry import ROOT, names, resolve
from assent.report.sections.drift import Style
from assent.training.preferences import BATCH_SPECS

TOP = ROOT.parent
DOCS = sorted(path for path in (TOP / "README.md", *(TOP / "docs").glob("*.md")) if path.exists())


class Started(Exception):
    """A command was parsed, and would do its work now."""


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    heading: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    language = ""
    start = 0
    heading = ""
    inside = list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip().startswith("```") and not start:
            language = line.strip()[3:].strip()
            start = number
            inside = []
        elif line.strip() == "```" and start:
            yield Block(page, start, language, "\n".join(inside) + "\n", heading)
            start = 0
        elif start:
            inside.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ").strip("`")


BLOCKS = [block for page in DOCS for block in blocks_of(page)]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def blocks_in(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


# Commands


def commands() -> list[tuple[str, str]]:
    """Return (place, command) of every line that begins with `assent`, also behind a variable or a pipe."""
    commands_of_docs = []
    for block in blocks_in("console", "sh", "bash", "shell"):
        text = block.text.replace("\\\n", " ")
        for line in text.splitlines():
            for piece in re.split(r"\||&&|;|>", line.strip().removeprefix("$ ")):
                words = re.sub(r"^(\w+=\S+ )+", "", piece.strip())
                if words.startswith("assent ") or words == "assent":
                    commands_of_docs.append((str(block), words))
    return commands_of_docs


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the examples and the recipes of the docs, where commands only read their settings."""

    def start(*_: Any, **__: Any) -> Any:
        raise Started

    monkeypatch.setattr("assent.run.open_run", start)
    monkeypatch.setattr("assent.tools.inspect.Inspect.__call__", start)
    monkeypatch.setattr("assent.web.serve.Serve.__call__", start)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(TOP / "examples")
    for block in blocks_in("toml"):
        if title := re.match(r"# ([\w-]+\.toml)\n", block.text):
            (tmp_path / title[1]).write_text(block.text)
    return tmp_path


def supply(words: list[str], folder: Path) -> None:
    """Create what a command reads before it starts: the recipe of an earlier run, a file in the format to import."""
    format_name = words[words.index("--format") + 1] if "--format" in words else "preference"
    format_name = "csv" if any(word.endswith(".csv") for word in words) else format_name
    if words[0] in ("report", "export"):
        run = words[words.index("--run") + 1] if "--run" in words else "runs/tiny"
        (folder / run).mkdir(parents=True, exist_ok=True)
    for word in words[1:]:
        path = folder / word
        if word.endswith("/recipe.toml"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        elif words[0] == "import" and re.search(r"\.(json|csv)", word) and not path.exists():
            path.write_text(next(block.text for block in blocks_in("jsonl", "csv") if block.heading == format_name))


def outcome(words: list[str]) -> Any:
    """Return the exit status of a command, or 0 if it would start."""
    try:
        return main(words)
    except SystemExit as exit_:
        return exit_.code or 0
    except Started:
        return 0


@pytest.mark.parametrize(("place", "command"), commands())
def test_every_command_of_the_docs_parses(
    place: str, command: str, sandbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command, comments=True)[1:]
    supply(words, sandbox)
    assert outcome(words) == 0, f"{place}: {command}: {capsys.readouterr().err}"


@pytest.mark.parametrize("command", ["assent ppo --stpes 3", "assent pppo", "assent run no.toml", "assent dpo --lr x"])
def test_wrong_command_would_fail(command: str, sandbox: Path) -> None:
    assert main(shlex.split(command)[1:]) == 2


@pytest.mark.parametrize("block", blocks_in("toml"), ids=str)
def test_every_recipe_of_the_docs_is_valid(block: Block, sandbox: Path) -> None:
    tomllib.loads(block.text)
    (sandbox / "recipe.toml").write_text(block.text)
    with pytest.raises(Started):
        main(["run", "recipe.toml"])


def test_makefile_has_every_target_of_the_docs() -> None:
    targets = set(re.findall(r"^([a-z]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(page.read_text(encoding="utf-8") for page in DOCS)
    assert set(re.findall(r"(?:^\$? ?|`)make ([a-z]+)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_command_in_prose_exists(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in sorted(set(re.findall(r"`assent ([a-z_]+)", prose(page)))):
        with pytest.raises(SystemExit) as exit_info:
            main([name, "--help"])
        assert not exit_info.value.code


# Python, formats


@pytest.mark.parametrize("block", blocks_in("python"), ids=str)
def test_python_of_the_docs_imports_existing_names(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            assert node.module
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)


@pytest.mark.parametrize("block", blocks_in("pycon"), ids=str)
def test_python_sessions_of_the_docs_are_true(block: Block) -> None:
    session = doctest.DocTestParser().get_doctest(block.text, {}, str(block), str(block.page), block.line)
    assert session.examples
    output: list[str] = []
    doctest.DocTestRunner(verbose=False).run(session, out=output.append)
    assert not output, "".join(output)


@pytest.mark.parametrize("block", blocks_in("jsonl", "csv"), ids=str)
def test_format_example_is_read_as_the_format_of_its_heading(block: Block, tmp_path: Path) -> None:
    path = tmp_path / f"example.{block.language}"
    path.write_text(block.text)
    reading = read_file(path)
    header = block.language == "csv"
    assert (reading.format, reading.skipped, reading.num_rows) == (block.heading, (), block.text.count("\n") - header)


def test_every_format_has_an_example() -> None:
    assert {block.heading for block in blocks_in("jsonl", "csv")} == {*FORMATS}


# Objectives, metrics


def rows(page: str) -> list[list[str]]:
    """Return the cells of every row of a page's tables."""
    lines = (TOP / "docs" / page).read_text(encoding="utf-8").splitlines()
    cells = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in cells if not set("".join(row)) <= set("- :")]


def sections(page: str) -> list[tuple[str, str]]:
    """Return (heading, text) of every `###` section of a page."""
    parts = re.split(r"^(#+) (.+)$", (TOP / "docs" / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [(parts[i + 1].strip(), parts[i + 2]) for i in range(1, len(parts), 3) if parts[i] == "###"]


@pytest.mark.parametrize("name", names("objectives"))
def test_objective_has_a_section_in_the_docs(name: str) -> None:
    (text,) = [text for heading, text in sections("objectives.md") if heading == name]
    source = (ROOT / "objectives" / f"{name}.py").read_text(encoding="utf-8")
    assert re.search(r"^ {4}\S", text, re.MULTILINE), "no equation"
    facts = dict(re.findall(r"^- ([A-Z][a-z]+): (.+?)(?=\n- |\n\n|\Z)", text, re.MULTILINE | re.DOTALL))
    assert {"Paper", "File", "Test", "Use", "Watch"} <= facts.keys()
    assert f"(../assent/objectives/{name}.py)" in facts["File"]
    cited = re.findall(r"arXiv:[\d.]+\d", facts["Paper"])
    assert cited or re.search(r"(19|20)\d\d", facts["Paper"])
    assert [paper_id for paper_id in cited if paper_id not in source] == []
    tests = "".join(path.read_text(encoding="utf-8") for path in (TOP / "tests").glob("test_objectives*.py"))
    assert f"def {facts['Test'].strip('`')}(" in tests


@pytest.mark.parametrize("name", names("objectives"))
def test_objective_settings_have_their_defaults_in_the_docs(name: str) -> None:
    (text,) = [text for heading, text in sections("objectives.md") if heading == name]
    listed = re.search(r"^- Settings: (.+?)(?=\n- |\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    settings = tomllib.loads("\n".join(re.findall(r"`(\w+ = [^`]+)`", listed[1] if listed else "")))
    assert settings == {field.name: field.default for field in fields(resolve("objectives", name))}


def keys_of(*patterns: str) -> set[str]:
    """Return the string keys of the dictionaries that files build."""
    keys_in_files: set[str] = set()
    for path in (path for pattern in patterns for path in ROOT.glob(pattern)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            keys: list[ast.expr | None] = []
            if isinstance(node, ast.Dict):
                keys = list(node.keys)
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                keys = [node.slice]
            keys_in_files |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return keys_in_files


MEASURING_PACKAGES = ("control", "evaluation", "functional", "objectives", "online", "stages", "training")
MEASURING = (
    *("batch.py", "runner.py", "scoring.py", "loggers/jsonl.py", "report/summary.py"),
    *(f"{package}/[a-z]*.py" for package in MEASURING_PACKAGES),
)
RECORDS = (
    *(Interval, WinRate, PolicyRating, Style, Bin, Calibration, Ceiling, Decisions, LengthControlled),
    *(CurvePoint, Fit, Difference),
)
"""Records whose fields are metrics."""
NOT_METRICS = {
    *("value", "adam", "masters", "params", "weight_decay"),  # models in training, and their state
    *("train_states", "extra_state", "best_scores"),  # the resumable state of a stage, and of an alarm
    *("alarm", "best_step_at_alarm", "best_texts"),  # that of the probes
    *("agent", "parameters", "iterations", "optimizer", "judgements", "scale", "offset"),  # that of an agent
    *("TimeLimit.truncated", "terminal_observation", "net_arch", "pi", "vf", "features_extractor_class"),  # SB3's
}


def metrics() -> set[str]:
    """Return every name of a metric or a result."""
    held_out = {f"held_out_{name}" for name in ("loss", "accuracy", "margin", "chosen", "rejected", "kl")}
    counts = {spec.noun for spec in BATCH_SPECS.values()}
    records = {name for record in RECORDS for name in record._fields}
    return (keys_of(*MEASURING) - NOT_METRICS) | records | held_out | counts


def explained_metrics() -> set[str]:
    """Return the names in the first columns of the tables of metrics, which are those of five columns."""
    return {word for row in rows("metrics.md") if len(row) == 5 for word in re.findall(r"`([A-Za-z_0-9]+)`", row[0])}


def test_every_metric_is_explained() -> None:
    assert sorted(metrics() - explained_metrics()) == []


def test_every_explained_metric_is_measured() -> None:
    assert sorted(explained_metrics() - metrics()) == []


def test_metric_tables_have_one_set_of_columns() -> None:
    columns = ["metric", "unit", "what it is", "expected", "warning sign"]
    headers = [row for row in rows("metrics.md") if row[0] == "metric"]
    assert len(headers) > 10 and all(header == columns for header in headers)


def test_metric_keys_are_read_from_the_source() -> None:
    assert {
        "loss",
        "kl_k3",
        "grad_norm",
        "sampler_logprob_diff",
        "too_long",
        "peak_gb",
        "explained_variance",
        "win_rate",
        "connected",
        "duplicate_share",
    } <= metrics()


# Links and paths


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_link_has_a_target(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}"


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_mentioned_path_exists(page: Path) -> None:
    pattern = r"(?<![\w/.-])(?:assent|tests|docs|examples|benchmarks|\.ci)/[\w./-]*[\w/]"
    for path in re.findall(pattern, page.read_text(encoding="utf-8")):
        assert (TOP / path).exists(), f"{page.name} mentions {path}"
