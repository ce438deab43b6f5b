"""What the docs say is so: commands parse, formats are read, words and objectives are explained, links lead on."""

import ast
import doctest
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from assent.cli import main
from assent.formats.files.exchange import FORMATS, read
from assent.functional.statistics import Interval, WinRate
from assent.registry import ROOT, names
from assent.report.page import Drift
from assent.training.preferences import FEEDS

TOP = ROOT.parent
DOCS = sorted(path for path in (TOP / "README.md", *(TOP / "docs").glob("*.md")) if path.exists())


class Started(Exception):
    """A command was understood, and would do its work now."""


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
    language, start, heading, inside = "", 0, "", list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip().startswith("```") and not start:
            language, start, inside = line.strip()[3:].strip(), number, []
        elif line.strip() == "```" and start:
            yield Block(page, start, language, "\n".join(inside) + "\n", heading)
            start = 0
        elif start:
            inside.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ").strip("`")


BLOCKS = [block for page in DOCS for block in blocks_of(page)]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def some(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


# Commands


def commands() -> list[tuple[str, str]]:
    """(where, command) of every line that begins with `assent`, and of each command behind a variable or a pipe."""
    found = []
    for block in some("console", "sh", "bash", "shell"):
        text = block.text.replace("\\\n", " ")
        for line in text.splitlines():
            for piece in re.split(r"\||&&|;|>", line.strip().removeprefix("$ ")):
                words = re.sub(r"^(\w+=\S+ )+", "", piece.strip())
                if words.startswith("assent ") or words == "assent":
                    found.append((str(block), words))
    return found


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples and with the recipes that the docs show, where no command gets beyond its settings."""

    def start(*_: Any, **__: Any) -> Any:
        raise Started

    monkeypatch.setattr("assent.run.open_run", start)
    monkeypatch.setattr("assent.tools.inspect.Inspect.__call__", start)
    monkeypatch.setattr("assent.web.serve.Serve.__call__", start)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(TOP / "examples")
    for block in some("toml"):
        if named := re.match(r"# ([\w-]+\.toml)\n", block.text):
            (tmp_path / named[1]).write_text(block.text)
    return tmp_path


def supply(words: list[str], folder: Path) -> None:
    """Put there what a command reads before it starts: the recipe of an earlier run, a file in the format to import."""
    wanted = words[words.index("--format") + 1] if "--format" in words else "preference"
    wanted = "csv" if any(word.endswith(".csv") for word in words) else wanted
    if words[0] in ("report", "export"):
        where = words[words.index("--run") + 1] if "--run" in words else "runs/tiny"
        (folder / where).mkdir(parents=True, exist_ok=True)
    for word in words[1:]:
        path = folder / word
        if word.endswith("/recipe.toml"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        elif words[0] == "import" and re.search(r"\.(json|csv)", word) and not path.exists():
            path.write_text(next(block.text for block in some("jsonl", "csv") if block.heading == wanted))


def outcome(words: list[str]) -> Any:
    """The exit status of a command, or 0 where it would start."""
    try:
        return main(words)
    except SystemExit as ended:
        return ended.code or 0
    except Started:
        return 0


@pytest.mark.parametrize(("where", "command"), commands())
def test_every_command_of_the_docs_is_understood(
    where: str, command: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command, comments=True)[1:]
    supply(words, workplace)
    assert outcome(words) == 0, f"{where}: {command}: {capsys.readouterr().err}"


@pytest.mark.parametrize("command", ["assent ppo --stpes 3", "assent pppo", "assent run no.toml", "assent dpo --lr x"])
def test_a_command_that_does_not_exist_would_be_found_out(command: str, workplace: Path) -> None:
    assert main(shlex.split(command)[1:]) == 2


@pytest.mark.parametrize("block", some("toml"), ids=str)
def test_every_recipe_of_the_docs_is_accepted(block: Block, workplace: Path) -> None:
    tomllib.loads(block.text)
    (workplace / "shown.toml").write_text(block.text)
    with pytest.raises(Started):
        main(["run", "shown.toml"])


def test_make_has_every_target_of_the_docs() -> None:
    targets = set(re.findall(r"^([a-z]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(page.read_text(encoding="utf-8") for page in DOCS)
    assert set(re.findall(r"(?:^\$? ?|`)make ([a-z]+)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_command_named_in_a_sentence_exists(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in sorted(set(re.findall(r"`assent ([a-z_]+)", prose(page)))):
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert not ended.value.code


# Python, formats


@pytest.mark.parametrize("block", some("python"), ids=str)
def test_python_of_the_docs_compiles_and_imports_what_there_is(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            assert node.module
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)


@pytest.mark.parametrize("block", some("pycon"), ids=str)
def test_sessions_of_the_docs_answer_as_they_are_shown(block: Block) -> None:
    session = doctest.DocTestParser().get_doctest(block.text, {}, str(block), str(block.page), block.line)
    assert session.examples
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(session, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("block", some("jsonl", "csv"), ids=str)
def test_every_format_is_read_as_what_its_heading_says(block: Block, tmp_path: Path) -> None:
    path = tmp_path / f"shown.{block.language}"
    path.write_text(block.text)
    reading, header = read(path), block.language == "csv"
    assert (reading.format, reading.rejected, reading.rows) == (block.heading, (), block.text.count("\n") - header)


def test_every_format_is_shown() -> None:
    assert {block.heading for block in some("jsonl", "csv")} == {*FORMATS}


# Objectives, metrics


def rows(page: str) -> list[list[str]]:
    """The cells of every row of a page's tables."""
    lines = (TOP / "docs" / page).read_text(encoding="utf-8").splitlines()
    cells = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in cells if not set("".join(row)) <= set("- :")]


@pytest.mark.parametrize("name", names("objectives"))
def test_every_objective_has_its_row(name: str) -> None:
    (row,) = [row for row in rows("objectives.md") if row[0] == f"`{name}`"]
    _, equation, paper, file, test, when, watch = row
    source = (ROOT / "objectives" / f"{name}.py").read_text(encoding="utf-8")
    assert equation and when and watch
    assert f"(../assent/objectives/{name}.py)" in file
    cited = re.findall(r"arXiv:[\d.]+\d", paper)
    assert cited or re.search(r"(19|20)\d\d", paper)
    assert [each for each in cited if each not in source] == []
    tests = "".join(path.read_text(encoding="utf-8") for path in (TOP / "tests").glob("test_objectives*.py"))
    assert f"def {test.strip('`')}(" in tests


def keys_of(*patterns: str) -> set[str]:
    """String keys of the dictionaries that files write down, and of what is put into them later."""
    found: set[str] = set()
    for path in (path for pattern in patterns for path in ROOT.glob(pattern)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            keys: list[ast.expr | None] = []
            if isinstance(node, ast.Dict):
                keys = list(node.keys)
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                keys = [node.slice]
            found |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return found


MEASURING = (
    *("batch.py", "objectives/*.py", *(f"functional/{name}.py" for name in ("advantages", "kl", "ranking"))),
    *("training/supervised.py", "training/left_out.py", "training/microbatch.py", "training/logging.py"),
    *(f"stages/{name}.py" for name in ("pretrain", "sft", "generate", "label", "reward", "online", "offline")),
    *(
        "stages/unpaired.py",
        "stages/evaluate.py",
        "stages/iterate.py",
        "stages/best_of_n.py",
        "stages/rejection_sampling.py",
    ),
)
NOT_WORDS = {
    *("policy", "value"),  # who is trained
    *("Pairs", "Unpaired", "Actions"),  # which stage feeds a batch
    *("stages", "rounds", "carry"),  # settings of the loop
    *names("feedback"),  # what people can be asked for
}


def words() -> set[str]:
    """Every word under which something is measured."""
    held = {f"held_out_{name}" for name in ("loss", "accuracy", "margin", "chosen", "rejected", "kl")}
    fed = {feed.noun for feed in FEEDS.values()}
    return (keys_of(*MEASURING) - NOT_WORDS) | {*Interval._fields, *WinRate._fields, *Drift._fields} | held | fed


def test_every_metric_word_is_explained() -> None:
    said = set(re.findall(r"`([a-z_0-9]+)`", (TOP / "docs" / "metrics.md").read_text(encoding="utf-8")))
    assert sorted(words() - said) == []


def test_every_word_that_is_explained_is_measured() -> None:
    told = {word for row in rows("metrics.md") for word in re.findall(r"`([a-z_0-9]+)`", row[0])}
    every = words() | {"win_rate", "reward_model"}
    assert sorted(told - every) == []


def test_a_word_is_found_where_it_is_measured() -> None:
    assert {"loss", "kl_k3", "grad_norm", "rollout_gap", "too_long", "peak_gb", "explained_variance"} <= words()


# Links and paths


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}"


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_path_of_ours_that_is_mentioned_exists(page: Path) -> None:
    ours = r"(?<![\w/.-])(?:assent|tests|docs|examples|benchmarks|\.ci)/[\w./-]*[\w/]"
    for path in re.findall(ours, page.read_text(encoding="utf-8")):
        assert (TOP / path).exists(), f"{page.name} mentions {path}"
