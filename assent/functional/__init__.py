"""Pure functions: losses, advantages, KL, ratings, agreement, statistics. Tensors or arrays in, tensors or arrays out.

Each name is imported when it is first used: what needs numpy alone does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # type checkers see every name
    from assent.functional.acquisition import *
    from assent.functional.advantages import *
    from assent.functional.agreement import *
    from assent.functional.alarm import *
    from assent.functional.calibration import *
    from assent.functional.compression import *
    from assent.functional.conciseness import *
    from assent.functional.decisions import *
    from assent.functional.diversity import *
    from assent.functional.ensemble import *
    from assent.functional.finite import *
    from assent.functional.grading import *
    from assent.functional.kl import *
    from assent.functional.length_control import *
    from assent.functional.logprobs import *
    from assent.functional.losses import *
    from assent.functional.near_identical import *
    from assent.functional.overlap import *
    from assent.functional.overoptimization import *
    from assent.functional.ratings import *
    from assent.functional.reliability import *
    from assent.functional.rouge import *
    from assent.functional.selective import *
    from assent.functional.sequential import *
    from assent.functional.statistics import *
    from assent.functional.surrogate import *
    from assent.functional.whitening import *

_NAMES = {
    "acquisition": (
        "bald",
        "d_optimal",
        "disagreement",
        "double_thompson",
        "fisher_weight",
        "k_centre",
        "Matchup",
        "predictive_entropy",
        "random_projection",
        "Selection",
        "win_probabilities",
    ),
    "advantages": (
        "AdvantageEstimate",
        "broadcast_to_tokens",
        "frac_reward_zero_std",
        "gae",
        "group_metrics",
        "group_relative",
        "leave_one_out",
        "token_rewards",
    ),
    "agreement": (
        "Agreement",
        "krippendorff_alpha",
        "Level",
        "near_agreement",
        "raw_agreement",
        "RawAgreement",
        "word_overlap",
    ),
    "alarm": (
        "Alarm",
        "AlarmState",
    ),
    "calibration": (
        "auroc",
        "Bin",
        "brier_score",
        "Calibration",
        "measure_calibration",
        "calibration_floor",
        "expected_calibration_error",
        "fit_temperature",
        "Floor",
        "negative_log_likelihood",
        "paired_difference",
        "Predictions",
        "reliability_bins",
    ),
    "compression": (
        "bits_per_byte",
        "word_perplexity",
    ),
    "conciseness": (
        "conciseness_score",
        "RubricScores",
        "score_rubric",
    ),
    "decisions": (
        "best_of_k_accuracy",
        "Ceiling",
        "decision_curve",
        "Decisions",
        "margin_decisions",
        "noise_ceiling",
        "precision_recall_f1",
        "PrecisionRecall",
        "within_group_spearman",
    ),
    "diversity": (
        "distinct_n",
        "expectation_adjusted_distinct",
        "ngram_similarity",
        "self_bleu",
        "vendi_score",
    ),
    "ensemble": (
        "combine",
        "ensemble_std",
        "Reduction",
    ),
    "finite": ("replace_nonfinite",),
    "grading": ("Grade", "grade_answer", "is_refusal", "normalize_answer"),
    "kl": (
        "adapt_beta",
        "k1",
        "k2",
        "k3",
        "kl_loss",
        "KLEstimator",
        "sequence_kl",
        "SequenceKL",
    ),
    "length_control": (
        "length_controlled_win_rate",
        "LengthControlled",
    ),
    "logprobs": (
        "token_logprobs",
        "TokenLogprobs",
    ),
    "losses": (
        "kway_loss",
        "pair_loss",
        "pair_metrics",
        "plackett_luce_loss",
        "ranking_accuracy",
    ),
    "near_identical": (
        "differs_by_few_edits",
        "is_near_identical",
        "normalise",
    ),
    "overlap": (
        "bleu",
        "chrf",
        "load_metrics",
        "Overlap",
    ),
    "overoptimization": (
        "best_of_n_curve",
        "best_of_n_kl",
        "best_of_n_rewards",
        "CurvePoint",
        "Fit",
        "fit_best_of_n",
        "fit_rl",
    ),
    "ratings": (
        "bradley_terry",
        "BradleyTerryFit",
        "RatingInterval",
    ),
    "reliability": (
        "dawid_skene",
        "DawidSkeneFit",
        "peer_kappa",
        "PeerAgreement",
    ),
    "rouge": (
        "Rouge",
        "rouge_scores",
        "Score",
        "word_tokens",
    ),
    "selective": (
        "answer_threshold",
        "augrc",
        "aurc",
        "coverage_curve",
        "CoveragePoint",
        "Selective",
        "selective_counts",
        "wrong_reward",
    ),
    "sequential": (
        "SequentialTest",
        "Status",
        "GoldTestState",
    ),
    "statistics": (
        "accuracy",
        "bootstrap",
        "clustered_win_rate",
        "Difference",
        "Interval",
        "Limits",
        "paired_mean_difference",
        "percentile_limits",
        "wilson",
        "win_rate",
        "WinRate",
    ),
    "surrogate": (
        "clipped_surrogate",
        "clipped_value_loss",
        "importance_ratio",
        "log_ratio",
        "Surrogate",
    ),
    "whitening": (
        "explained_variance",
        "Moments",
        "moments",
        "whiten",
    ),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import the module of a public name, and return the name's value."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
