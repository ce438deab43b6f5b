"""Likelihood of held-out text against a plain forward pass of transformers, in windows of the context."""

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from assent.errors import AssentError
from assent.evaluation.language_modelling import measure_text_likelihood
from assent.models.load import LoadedModel
from assent.training.texts import read_documents

STORIES = tiny.STORIES.read_text().split("\n\n")
LONG = "\n".join(STORIES[:20])
"""Some 1,000 tokens of the tiny model, whose context has 256."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(folder: Path) -> LoadedModel:
    return tiny.load(folder)


@pytest.fixture
def uniform_model(folder: Path) -> LoadedModel:
    """Return a model to which all tokens are equally likely."""
    loaded = tiny.load(folder)
    with torch.no_grad():
        for weight in loaded.model.parameters():
            weight.zero_()
    return loaded


def plain_nats(folder: Path, document: str, begin_id: int) -> float:
    """Return the nats of a document by transformers' own forward pass, a window at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plain: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids = AutoTokenizer.from_pretrained(folder)(document, add_special_tokens=False)["input_ids"]
    nats = 0.0
    for begin in range(0, len(ids), 255):
        window = torch.tensor([begin_id, *ids[begin : begin + 255]])
        with torch.no_grad():
            logits = plain(input_ids=window[None]).logits[0, :-1]
        nats += float(torch.nn.functional.cross_entropy(logits.double(), window[1:], reduction="sum"))
    return nats


def test_likelihood_equals_a_plain_forward_pass(folder: Path, model: LoadedModel) -> None:
    documents = [STORIES[0], LONG, "Zoë ate 3 crêpes."]
    end_id = int(model.tokenizer.eos_token_id)
    nats = sum(plain_nats(folder, document, end_id) for document in documents)
    num_bytes = sum(len(document.encode()) for document in documents)
    measures = measure_text_likelihood(model, documents)
    assert measures["nats"] == pytest.approx(nats, rel=1e-5)
    assert measures["bits_per_byte"] == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)
    assert (measures["bytes"], measures["documents"]) == (num_bytes, 3)


def test_a_window_begins_with_bos_where_there_is_one(folder: Path, model: LoadedModel) -> None:
    model.tokenizer.bos_token = "<|start|>"
    bos_id = int(model.tokenizer.bos_token_id)
    nats = measure_text_likelihood(model, [LONG])["nats"]
    assert nats == pytest.approx(plain_nats(folder, LONG, bos_id), rel=1e-5)
    assert nats != pytest.approx(plain_nats(folder, LONG, int(model.tokenizer.eos_token_id)), rel=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 300, 100_000])
def test_likelihood_does_not_depend_on_the_batch_size(max_tokens: int, model: LoadedModel) -> None:
    documents = [*STORIES[:12], LONG]
    expected = measure_text_likelihood(model, documents)["nats"]
    assert measure_text_likelihood(model, documents, max_tokens)["nats"] == pytest.approx(expected, rel=1e-6)


def test_documents_do_not_see_each_other(model: LoadedModel) -> None:
    apart = sum(measure_text_likelihood(model, [document])["nats"] for document in STORIES[:3])
    assert measure_text_likelihood(model, STORIES[:3])["nats"] == pytest.approx(apart, rel=1e-6)


def test_a_document_longer_than_the_context_counts_once(uniform_model: LoadedModel) -> None:
    tokens = len(uniform_model.tokenizer(LONG, add_special_tokens=False, verbose=False)["input_ids"])
    vocab_size = uniform_model.model.config.vocab_size
    measures = measure_text_likelihood(uniform_model, [LONG])
    assert tokens > 3 * 256
    assert measures["nats"] == pytest.approx(tokens * math.log(vocab_size))
    assert measures["bytes"] == len(LONG.encode())
    assert measures["bits_per_byte"] == pytest.approx(tokens * math.log2(vocab_size) / len(LONG.encode()))
    assert measures["word_perplexity"] == pytest.approx(vocab_size ** (tokens / len(LONG.split())))


def test_a_control_token_in_a_document_is_text(uniform_model: LoadedModel) -> None:
    measures = measure_text_likelihood(uniform_model, ["<|end|>"])
    assert measures["bytes"] == 7
    assert measures["nats"] >= 3 * math.log(uniform_model.model.config.vocab_size)


def test_documents_without_a_word_are_refused(model: LoadedModel) -> None:
    for documents in ([], [""], [" \n"]):
        with pytest.raises(AssentError, match="the documents have no word to predict"):
            measure_text_likelihood(model, documents)


def test_a_file_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n \n\n")
    with pytest.raises(AssentError, match="has no text"):
        read_documents(str(tmp_path / "empty.txt"))
