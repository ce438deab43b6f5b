"""Data sets of the Hugging Face Hub by name, from a cache folder laid out as the hub's own; the hub is not reached."""

import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hub_cache import add_data_set

from assent.cli import main
from assent.errors import AssentError
from assent.formats.files.hub import HubName
from assent.formats.files.importing import read_file
from assent.run import open_store
from assent.training.texts import read_documents

Fill = Callable[[str, dict[str, bytes]], None]
"""Puts files of a data set into the cache."""


def rows(*words: str) -> bytes:
    pairs = [{"prompt": f"Name a {word}.", "chosen": f"One {word}.", "rejected": "No."} for word in words]
    return "".join(json.dumps(pair) + "\n" for pair in pairs).encode()


def card(text: str) -> bytes:
    return f"---\n{text}\n---\n# A data set\n".encode()


@pytest.fixture
def fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fill:
    """Return the function that fills an empty cache; without a network nothing else is read."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    return partial(add_data_set, cache)


def prompts(path: str) -> list[str]:
    return [prompt.text.removeprefix("Name a ").removesuffix(".") for prompt in read_file(path).prompts]


def test_import_reads_the_train_split_of_a_data_set(
    fill: Fill, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(
        "owner/pairs", {"train.jsonl": rows("cat", "dog"), "test.jsonl": rows("owl"), "README.md": card("license: mit")}
    )
    run = tmp_path / "run"
    assert main(["import", "hf://owner/pairs", "--run", str(run)]) == 0
    output = capsys.readouterr().out
    assert "hf://owner/pairs: 2 of 2 rows read as preference (detected)" in output
    assert "split train of test, train; name hf://owner/pairs:test for another" in output
    with open_store(run) as store:
        assert {event.annotator for event in store.feedback()} == {"imported:owner/pairs/train"}


def test_split_of_several_gzipped_files_is_read_whole(fill: Fill) -> None:
    configs = (
        "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path:\n    - a/*.gz\n    - b/x.jsonl.gz"
    )
    files = {"a/1.jsonl.gz": gzip.compress(rows("cat")), "b/x.jsonl.gz": gzip.compress(rows("dog"))}
    fill("owner/parts", {**files, "b/y.jsonl.gz": gzip.compress(rows("owl")), "README.md": card(configs)})
    assert prompts("hf://owner/parts:train") == ["cat", "dog"]


def test_part_is_a_configuration_or_a_folder(fill: Fill) -> None:
    configs = "configs:\n- config_name: one\n  data_files: one.jsonl\n- config_name: two\n  data_files: two.jsonl"
    fill("owner/configs", {"one.jsonl": rows("cat"), "two.jsonl": rows("dog"), "README.md": card(configs)})
    assert prompts("hf://owner/configs/two") == ["dog"]
    with pytest.raises(AssentError, match=r"has the configurations one, two: name one of them, such as hf://o.*/one$"):
        read_file("hf://owner/configs")
    fill(
        "owner/folders",
        {"big/train.jsonl": rows("cat"), "small/train.jsonl": rows("dog"), "small/test.jsonl": rows("owl")},
    )
    assert prompts("hf://owner/folders/small:test") == ["owl"]
    with pytest.raises(AssentError, match=r"no configuration or folder 'tiny'; it has big, small$"):
        read_file("hf://owner/folders/tiny")


def test_files_without_a_split_are_left_out_beside_splits(fill: Fill) -> None:
    files = {"train.jsonl": rows("cat"), "validation.jsonl": rows("owl"), "extra/more.jsonl": rows("dog")}
    fill("owner/mixed", files)
    assert prompts("hf://owner/mixed") == ["cat"]
    assert prompts("hf://owner/mixed/extra") == ["dog"]


def test_parquet_of_the_converted_branch_is_read(fill: Callable[..., None], tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist([json.loads(rows("cat"))]), tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes()
    fill("owner/script", {"script.py": b"import datasets\n"})
    fill("owner/script", {"default/train/0000.parquet": content}, "refs/convert/parquet")
    assert prompts("hf://owner/script@refs/convert/parquet") == ["cat"]
    with pytest.raises(AssentError, match=r"loading script is not run; try hf://owner/script@refs/convert/parquet$"):
        read_file("hf://owner/script")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("hf://a/b", HubName("a/b", None, "", "")),
        ("hf://datasets/a/b:test_sft", HubName("a/b", None, "", "test_sft")),
        ("hf://a/b.c@v1.0/part/x:dev", HubName("a/b.c", "v1.0", "part/x", "dev")),
        ("hf://a/b@refs/convert/parquet/default:test", HubName("a/b", "refs/convert/parquet", "default", "test")),
    ],
)
def test_hub_name_has_revision_part_and_split(path: str, name: HubName) -> None:
    assert HubName.parse(path) == name


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hf://owner", "'hf://owner' names no data set: write hf://owner/name, or hf://owner/name:split"),
        ("hf://a/b:c:d", "'hf://a/b:c:d' names no data set"),
        ("hf://owner/absent", "the hub cannot be reached, and its cache has no copy; run 'hf download owner/absent"),
        (
            "hf://owner/pairs:val",
            "hf://owner/pairs has the splits test, train: name one of them, such as hf://owner/pairs:test",
        ),
    ],
)
def test_data_set_that_cannot_be_read_is_one_line(
    path: str, message: str, fill: Fill, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("owner/pairs", {"train.jsonl": rows("cat"), "test.jsonl": rows("owl")})
    assert main(["import", path, "--run", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_prompts_of_generate_come_from_the_hub(fill: Fill) -> None:
    fill("owner/prompts", {"train.jsonl": b'{"prompt": "Name a cat."}\n'})
    assert prompts("hf://owner/prompts") == ["cat"]
    assert prompts(str(Path("hf://owner/prompts"))) == ["cat"]


def test_folder_of_json_shards_is_read_as_one_split(tmp_path: Path) -> None:
    for name, content in (("train-0.jsonl", rows("cat")), ("train-1.jsonl", rows("dog")), ("test.jsonl", rows("owl"))):
        (tmp_path / name).write_bytes(content)
    assert prompts(str(tmp_path)) == ["cat", "dog"]
    assert prompts(str(tmp_path / "test")) == ["owl"]


def test_texts_of_pretraining_come_from_any_data_set(fill: Fill, tmp_path: Path) -> None:
    texts = b'{"text": "One cat."}\n{"text": "One dog."}\n'
    fill("owner/texts", {"train.jsonl": texts})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "train-0.jsonl").write_bytes(texts)
    (tmp_path / "plain.txt").write_text("One cat.\n\nOne dog.")
    for path in ("hf://owner/texts", tmp_path / "folder", tmp_path / "plain.txt"):
        assert read_documents(str(path)) == ["One cat.", "One dog."]


def test_import_shows_the_first_row_before_it_stores_anything(
    fill: Fill, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("owner/pairs", {"train.jsonl": rows("cat", "dog")})
    assert main(["import", "hf://owner/pairs", "--run", str(tmp_path / "run")]) == 0
    heading, prompt, *responses, comparison = capsys.readouterr().out.splitlines()[:5]
    assert heading == "hf://owner/pairs: the first row, read as preference:"
    assert prompt == "    text to continue  Name a cat."
    better = next(line for line in responses if line.endswith("  One cat.")).split("  ")[2]
    assert comparison == f"    comparison  {better}, strength 1 (by imported:owner/pairs/train, human)"
