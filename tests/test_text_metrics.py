"""ROUGE, BLEU, chrF, diversity and bits per byte, by hand and by the numbers of sacrebleu."""

import math
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assent.errors import AssentError
from assent.functional.compression import bits_per_byte, word_perplexity
from assent.functional.diversity import (
    distinct_n,
    expectation_adjusted_distinct,
    ngram_similarity,
    self_bleu,
    vendi_score,
)
from assent.functional.overlap import Overlap, bleu, chrf
from assent.functional.rouge import Score, rouge_scores, word_tokens

FOX = "the quick brown fox jumped over the lazy dog"
FOX_REFERENCE = "the quick brown dog jumped over the fox"
CORPUS = ["the cat sat on the mat today", "a dog ran"]
CORPUS_REFERENCES = ["the cat sat on the mat", "a dog ran fast"]

few_words = st.lists(st.sampled_from("abc"), max_size=8).map(" ".join)
many_texts = st.lists(few_words, min_size=1, max_size=6)


# ROUGE


def test_rouge_of_the_quick_brown_fox() -> None:
    # The texts have 9 and 8 words. ROUGE-1: all 8 are in the candidate. ROUGE-2: "the quick", "quick brown", "jumped
    # over" and "over the", of 8 and 7 pairs. ROUGE-L: "the quick brown jumped over the".
    result = rouge_scores(FOX, FOX_REFERENCE)
    assert result.rouge1 == pytest.approx((8 / 9, 1, 16 / 17))
    assert result.rouge2 == pytest.approx((4 / 8, 4 / 7, 8 / 15))
    assert result.rougeL == pytest.approx((6 / 9, 6 / 8, 12 / 17))


def test_rouge_equals_the_numbers_of_rouge_score() -> None:
    # rouge-score 0.1.2 of the same two texts with the roles exchanged: its first argument is the reference.
    result = rouge_scores(FOX_REFERENCE, FOX)
    assert result.rouge1 == pytest.approx((1, 0.888889, 0.941176), abs=5e-7)
    assert result.rouge2 == pytest.approx((0.571429, 0.5, 0.533333), abs=5e-7)
    assert result.rougeL == pytest.approx((0.75, 0.666667, 0.705882), abs=5e-7)


def test_rouge_counts_a_repeated_word_as_often_as_both_have_it() -> None:
    assert rouge_scores("a a a", "a b").rouge1 == pytest.approx((1 / 3, 1 / 2, 2 / 5))


def lcs_by_definition(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    @cache
    def length(i: int, j: int) -> int:
        if not i or not j:
            return 0
        if first[i - 1] == second[j - 1]:
            return length(i - 1, j - 1) + 1
        return max(length(i - 1, j), length(i, j - 1))

    return length(len(first), len(second))


@given(few_words, few_words)
def test_rouge_l_is_the_longest_common_subsequence(candidate: str, reference: str) -> None:
    words = tuple(candidate.split())
    reference_words = tuple(reference.split())
    common = lcs_by_definition(words, reference_words)
    precision = common / len(words) if common else 0
    recall = common / len(reference_words) if common else 0
    assert rouge_scores(candidate, reference).rougeL[:2] == pytest.approx((precision, recall))


@given(st.text(), st.text())
def test_rouge_exchanges_precision_and_recall(candidate: str, reference: str) -> None:
    for score, mirrored in zip(rouge_scores(candidate, reference), rouge_scores(reference, candidate), strict=True):
        assert (score.precision, score.recall, score.f) == (mirrored.recall, mirrored.precision, mirrored.f)
        assert 0 <= min(score) <= score.f <= max(score) <= 1


@given(st.text())
def test_rouge_of_a_text_and_itself_is_1(text: str) -> None:
    perfect = Score(1, 1, 1)
    words = word_tokens(text)
    assert rouge_scores(text, text) == (
        perfect if words else Score(0, 0, 0),
        perfect if len(words) > 1 else Score(0, 0, 0),
        perfect if words else Score(0, 0, 0),
    )


@pytest.mark.parametrize(("candidate", "reference"), [("", ""), ("", "a b"), ("a b", ""), ("!?", "!?"), ("a b", "c d")])
def test_rouge_without_a_common_word_is_0(candidate: str, reference: str) -> None:
    assert set(rouge_scores(candidate, reference)) == {Score(0, 0, 0)}


def test_rouge_reads_other_scripts_and_ignores_case() -> None:
    # 3 of 3 words, 2 of 2 pairs; then 1 of 2 words; a run of characters without spaces is one word.
    assert set(rouge_scores("Η γάτα κοιμάται", "η ΓΆΤΑ κοιμάται.")) == {Score(1, 1, 1)}
    assert rouge_scores("собака спит", "собака бежит").rouge1 == Score(0.5, 0.5, 0.5)
    assert rouge_scores("猫在睡觉", "猫在睡觉").rouge1 == Score(1, 1, 1)
    assert rouge_scores("猫在睡觉", "猫在跑步").rouge1 == Score(0, 0, 0)


# BLEU and chrF


def test_bleu_of_a_corpus_equals_sacrebleu() -> None:
    # Precisions 9/10, 7/8, 5/6 and 3/4, of 10 words against 10: their geometric mean, without a brevity penalty.
    result = bleu(CORPUS, CORPUS_REFERENCES)
    assert result.score == pytest.approx(100 * (9 / 10 * 7 / 8 * 5 / 6 * 3 / 4) ** 0.25)
    assert result.score == pytest.approx(83.759224, abs=5e-7)
    assert result.signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.")


def test_chrf_of_a_sentence_equals_sacrebleu() -> None:
    # Without spaces 17 of 22 characters, 16 of 21 pairs, .. 12 of 17 sixes: mean precision P, recall 1, and
    # F2 = 5P / (4P + 1).
    result = chrf(CORPUS[:1], CORPUS_REFERENCES[:1])
    precision = sum((18 - n) / (23 - n) for n in range(1, 7)) / 6
    assert result.score == pytest.approx(100 * 5 * precision / (4 * precision + 1))
    assert result.score == pytest.approx(93.485164, abs=5e-7)
    assert result.signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.")


@pytest.mark.parametrize("metric", [bleu, chrf])
def test_corpus_scores_range_from_0_to_100(metric: Callable[[list[str], list[str]], Overlap]) -> None:
    # Four words at least: BLEU needs a 4-gram.
    assert metric(["одна собака бежит быстро"], ["одна собака бежит быстро"]).score == pytest.approx(100)
    assert metric([""], ["a dog ran fast"]).score == 0
    assert metric(["xxxx"], ["a dog ran fast"]).score == 0


@pytest.mark.parametrize("metric", [bleu, chrf])
@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ([], [], "there are 0 candidates and 0 references: give one reference per candidate, and at least one"),
        (["a"], ["a", "b"], "there are 1 candidates and 2 references: give one reference per candidate"),
        ("a dog", ["a dog"], "candidates or references are one string: give lists of texts"),
    ],
)
def test_corpus_scores_refuse_unpaired_texts(
    metric: Callable[[list[str], list[str]], Overlap], candidates: list[str], references: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metric(candidates, references)


def test_missing_sacrebleu_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    calls: dict[str, Callable[[], object]] = {
        "bleu": lambda: bleu(CORPUS, CORPUS_REFERENCES),
        "chrf": lambda: chrf(CORPUS, CORPUS_REFERENCES),
        "self_bleu": lambda: self_bleu(CORPUS),
    }
    for name, call in calls.items():
        with pytest.raises(AssentError) as error:
            call()
        assert str(error.value) == f"{name} needs sacrebleu: pip install 'assent[text]'"


# Diversity


def test_distinct_n_by_hand() -> None:
    # "a b a b" and "a b c": a, b, c among 7 words; ab, ba, bc among 5 pairs; aba, bab, abc are 3 of 3.
    texts = ["a b a b", "a b c"]
    assert distinct_n(texts, 1) == pytest.approx(3 / 7)
    assert distinct_n(texts, 2) == pytest.approx(0.6)
    assert distinct_n(texts, 3) == 1


def test_ead_by_hand() -> None:
    # 7 draws of 10 words give 10 (1 - 0.9^7) = 5.217031 distinct ones on average, and there are 3.
    assert expectation_adjusted_distinct(["a b a b", "a b c"], 1, 10) == pytest.approx(3 / (10 * (1 - 0.9**7)))
    assert expectation_adjusted_distinct(["a b a b", "a b c"], 1, 10) == pytest.approx(0.575040, abs=5e-7)
    assert expectation_adjusted_distinct(["a a a"], 1, 1) == 1


def test_ead_of_uniform_draws_is_1_at_any_length() -> None:
    # While distinct-1 falls: 300 draws from 500 words have about 226 distinct ones, 3000 draws 499.
    random = np.random.default_rng(0)
    short, long = (" ".join(map(str, random.integers(500, size=size))) for size in (300, 3000))
    assert expectation_adjusted_distinct([short], 1, 500) == pytest.approx(1, abs=0.05)
    assert expectation_adjusted_distinct([long], 1, 500) == pytest.approx(1, abs=0.05)
    assert distinct_n([short], 1) > 4 * distinct_n([long], 1)


@given(many_texts, st.integers(1, 3))
def test_ead_nears_distinct_n_in_a_large_vocabulary(texts: list[str], n: int) -> None:
    # V (1 - (1 - 1/V)^C) tends to C.
    expected = distinct_n(texts, n)
    assert expectation_adjusted_distinct(texts, n, 10**12) == pytest.approx(expected, nan_ok=True)
    assert math.isnan(expected) or 0 < expected <= 1
    assert distinct_n(texts * 2, n) == pytest.approx(expected / 2, nan_ok=True)


@pytest.mark.parametrize("texts", [[], [""], ["", "!?"], ["a"]])
def test_distinct_n_without_an_n_gram_is_undefined(texts: list[str]) -> None:
    assert math.isnan(distinct_n(texts, 2))
    assert math.isnan(expectation_adjusted_distinct(texts, 2, 10))


def test_self_bleu_by_hand() -> None:
    # The first two share 4 of 6 words (dog, or a and cat, are missing), 3 of 5 pairs, 2 of 4 triples and 1 of 3
    # quadruples. The third has 1 of 7 words; the counts 0 of 6, 5 and 4 are smoothed to 1/2, 1/4 and 1/8.
    texts = ["the dog sat on the mat", "a cat sat on the mat", "most birds fly south in the winter"]
    shared = 100 * (4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    smoothed = 100 * (1 / 7 * 1 / 12 * 1 / 20 * 1 / 32) ** 0.25
    assert self_bleu(texts) == pytest.approx([shared, shared, smoothed])
    assert self_bleu(texts) == pytest.approx([50.813275, 50.813275, 6.567275], abs=5e-7)


def test_self_bleu_of_two_is_the_sentence_bleu() -> None:
    # All n-grams of "a dog ran" are in "a dog ran fast", of which it has 3 words for 4: exp(1 - 4/3).
    assert self_bleu(["a dog ran", "a dog ran fast"])[0] == pytest.approx(100 * math.exp(-1 / 3))
    assert self_bleu(["a dog ran", "a dog ran fast"])[0] == pytest.approx(71.653131, abs=5e-7)


def test_self_bleu_of_equal_texts_is_100_and_of_empty_0() -> None:
    assert self_bleu(["собака бежит"] * 3) == pytest.approx([100] * 3)
    assert self_bleu(["", "a dog ran", "!"]) == pytest.approx([0, 0, 0])
    assert self_bleu(["", ""]) == pytest.approx([0, 0])


def test_vendi_score_by_hand() -> None:
    # Eigenvalues of K / N: 1/3 three times; 1 and 0; 3/4 and 1/4, whose entropy is 0.562335.
    assert vendi_score(np.eye(3)) == pytest.approx(3)
    assert vendi_score(np.ones((3, 3))) == pytest.approx(1)
    assert vendi_score([[1, 0.5], [0.5, 1]]) == pytest.approx((3 / 4) ** -0.75 * (1 / 4) ** -0.25)
    assert vendi_score([[1, 0.5], [0.5, 1]]) == pytest.approx(1.754765, abs=5e-7)
    assert vendi_score([[1]]) == 1


@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_vendi_score_counts_copies_once(n: int, dimensions: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    once = vendi_score(vectors @ vectors.T)
    doubled = np.concatenate([vectors, vectors])
    assert vendi_score(doubled @ doubled.T) == pytest.approx(once, rel=1e-4)
    assert 1 - 1e-4 <= once <= min(n, dimensions) + 1e-4


def test_ngram_similarity_by_hand() -> None:
    # abcd: abc, bcd. abce: abc, bce. bcdbcd: bcd twice, cdb, dbc, of length sqrt 6; 2 in common with abcd, sqrt 2.
    cosines = ngram_similarity(["abcd", "abce", "bcdbcd"])
    assert cosines == pytest.approx(np.array([[1, 1 / 2, 3**-0.5], [1 / 2, 1, 0], [3**-0.5, 0, 1]]))
    # Letters: ab and a have one of sqrt 2 in common.
    assert ngram_similarity(["ab", "a"], n=1)[0, 1] == pytest.approx(2**-0.5)


def test_ngram_similarity_ignores_case_and_kinds_of_space() -> None:
    assert ngram_similarity(["Η Γάτα", " η\nγάτα "])[0, 1] == pytest.approx(1)
    # An empty text equals another, and resembles nothing else; a short one is one n-gram.
    assert ngram_similarity(["", " ", "a", "A", "ab"]) == pytest.approx(
        np.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]])
    )
    assert ngram_similarity([]).shape == (0, 0)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=6), st.integers(1, 4))
def test_ngram_similarity_is_a_kernel_for_vendi(texts: list[str], n: int) -> None:
    cosines = ngram_similarity(texts, n)
    assert (cosines == cosines.T).all()
    assert 0 <= cosines.min() <= cosines.max() <= 1 + 1e-12
    assert 1 - 1e-9 <= vendi_score(cosines) <= len(texts) + 1e-9
    assert vendi_score(ngram_similarity(texts[:1] * 3, n)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        ([[1, 0, 0], [0, 1, 0]], r"the similarity has shape \(2, 3\): give \(N, N\)"),
        (np.ones((0, 0)), r"the similarity has shape \(0, 0\): give \(N, N\) with N of 1 or more"),
        ([1, 1], r"the similarity has shape \(2,\)"),
        ([[1, math.nan], [math.nan, 1]], "a similarity is not finite: an embedding of length 0 has no cosine"),
        ([[1, 0.5], [0.4, 1]], "the similarity is not symmetric"),
        ([[4, 0], [0, 4]], "the diagonal of the similarity is not 1: divide embeddings by their lengths first"),
        ([[1, 2], [2, 1]], "the similarity has a negative eigenvalue: use a kernel"),
    ],
)
def test_vendi_score_refuses_what_is_no_kernel(similarity: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vendi_score(similarity)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distinct_n("a b c", 1), "texts are one string: give a list of texts"),
        (lambda: expectation_adjusted_distinct("a b c", 1, 9), "texts are one string"),
        (lambda: self_bleu("a b c"), "texts are one string"),
        (lambda: ngram_similarity("a b c"), "texts are one string"),
        (lambda: distinct_n(["a b c"], 0), "n is 0: an n-gram has 1 word or character at least"),
        (lambda: ngram_similarity(["a b c"], -1), "n is -1"),
        (
            lambda: self_bleu(["a b c"]),
            "self-BLEU compares each text with the others, and there are 1: give two or more",
        ),
        (lambda: self_bleu([]), "there are 0: give two or more"),
        (
            lambda: expectation_adjusted_distinct(["a b c"], 1, 2),
            "vocabulary_size is 2, but the texts have 3 distinct 1-grams: give the number that could occur",
        ),
        (lambda: expectation_adjusted_distinct([""], 1, 0), "vocabulary_size is 0, but the texts have 0 distinct"),
    ],
)
def test_diversity_refuses_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Compression


def test_bits_per_byte_and_perplexity_by_hand() -> None:
    # 8 nats are 8 / ln 2 = 11.541560 bits, over the 4 bytes of "abcd"; two words of ln 3 nats each are 1 of 3.
    assert bits_per_byte(8, len(b"abcd")) == pytest.approx(8 / math.log(2) / 4)
    assert bits_per_byte(8, len(b"abcd")) == pytest.approx(2.885390, abs=5e-7)
    assert word_perplexity(2 * math.log(3), 2) == pytest.approx(3)


@given(st.integers(1, 1000), st.integers(1, 256))
def test_uniform_bytes_cost_log_2_of_their_number(num_bytes: int, choices: int) -> None:
    nats = num_bytes * math.log(choices)
    assert bits_per_byte(nats, num_bytes) == pytest.approx(math.log2(choices))
    assert word_perplexity(nats, num_bytes) == pytest.approx(choices)


def test_perplexity_of_impossible_text_is_infinite() -> None:
    assert word_perplexity(math.inf, 1) == word_perplexity(1e6, 1) == bits_per_byte(math.inf, 1) == math.inf
    assert word_perplexity(0, 1) == 1
    assert bits_per_byte(0, 1) == 0


@pytest.mark.parametrize("metric", [bits_per_byte, word_perplexity])
@pytest.mark.parametrize(
    ("nats", "count", "message"),
    [
        (-3.0, 1, "nats are -3.0: give the negative log-likelihood, which is 0 or more"),
        (math.nan, 1, "nats are nan"),
        (3.0, 0, "the text has 0 (bytes|words): give at least 1"),
    ],
)
def test_compression_refuses_bad_input(
    metric: Callable[[float, int], float], nats: float, count: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metric(nats, count)
