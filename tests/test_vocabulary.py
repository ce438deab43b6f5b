"""Names in the code: few vague words, and none of the replaced private words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from assent.registry import ROOT

TOP = ROOT.parent
FOLDERS = [folder for name in ("assent", "tests", "benchmarks") if (folder := TOP / name).is_dir()]
VAGUE = frozenset(
    [
        "made",
        "found",
        "told",
        "said",
        "some",
        "one",
        "other",
        "each",
        "there",
        "kept",
        "held",
        "asked",
        "mine",
        "ours",
        "own",
        "seen",
        "given",
        "thing",
        "what",
        "who",
        "why",
        "how",
        "where",
        "here",
        "rest",
        "more",
        "about",
        "by",
        "heard",
        "lent",
        "done",
        "drawn",
        "shown",
        "met",
        "known",
    ]
)
"""Words that name neither a type nor a role."""
MOST_VAGUE = 0.01
"""Share of bindings: twelve well-known codebases have between none and 1 %."""
REPLACED = frozenset(
    (
        # records and stores
        *("Query", "Answer", "Ranked", "Imitation", "Rejected", "Inquiry", "Material", "Desk", "Lent", "Office"),
        *("Talker", "Ballot", "Sheet", "Voice"),
        # models, training, generation
        *("Tree", "Pack", "Language", "Codec", "Trainee", "Worker", "Draws", "Drawn", "Body", "Meter", "Bar"),
        *("by_tree", "descend", "imitate", "keep_freed", "give_back"),
        # statistics and simulation
        *("Duel", "Habits", "evenness", "sharpness", "mistakes", "luck", "dice"),
        # settings, rules and annotators
        *("carry", "weigh", "redraw", "ptx", "odds_weight", "normaliser", "centring", "tokens_per_pack", "per_prompt"),
        *("one_sentence", "careful", "hasty"),
    )
)
"""Names that were replaced by the field's; docs/glossary.md has the new ones."""


def parsed_files() -> Iterator[tuple[Path, ast.Module]]:
    for folder in FOLDERS:
        for path in sorted(folder.rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def bindings(tree: ast.AST) -> Iterator[str]:
    """Yield every name that is bound to a value: targets, arguments, caught exceptions."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name
            case ast.ExceptHandler(name=str(name)):
                yield name


def definitions(tree: ast.AST) -> Iterator[str]:
    """Yield every name that a file defines: bindings, functions, classes, attributes."""
    yield from bindings(tree)
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def vague_share(trees: list[ast.Module]) -> float:
    names = [name for tree in trees for name in bindings(tree)]
    return sum(name.strip("_") in VAGUE for name in names) / len(names)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_bindings_are_not_vague_words(folder: Path) -> None:
    trees = [tree for path, tree in parsed_files() if folder in path.parents]
    assert vague_share(trees) <= MOST_VAGUE


def test_vague_share_counts_every_kind_of_binding() -> None:
    source = "def f(told, x):\n    for one in x:\n        made = 1\n    with x as kept: pass\n    y = [k for k in x]"
    assert vague_share([ast.parse(source)]) == 4 / 7


def test_replaced_names_do_not_come_back() -> None:
    offenders = [
        f"{path.relative_to(TOP)}: {name}"
        for path, tree in parsed_files()
        for name in definitions(tree)
        if name.strip("_") in REPLACED and path.name not in ("legacy.py", "test_legacy.py")
    ]
    assert offenders == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_function_docstrings_begin_with_a_verb(folder: Path) -> None:
    """Refuse docstrings that begin with "What", "Whether", "Who" or another relative word."""
    clause = re.compile(r"(What|Whether|Who|Where|Which|How|Why|Those|That)\b")
    functions = [
        (path, node)
        for path, tree in parsed_files()
        for node in ast.walk(tree)
        if folder in path.parents and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    offenders = [(path, node) for path, node in functions if clause.match(ast.get_docstring(node) or "")]
    assert [f"{path.relative_to(TOP)}:{node.lineno} {node.name}" for path, node in offenders] == []
