"""Pure functions: losses, advantages, KL, ratings, agreement, statistics. Tensors or arrays in, tensors or arrays out.

Each name is imported when it is first used: what needs numpy alone does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assent.functional.acquisition import (
        Matchup as Matchup,
    )
    from assent.functional.acquisition import (
        Selection as Selection,
    )
    from assent.functional.acquisition import (
        bald as bald,
    )
    from assent.functional.acquisition import (
        d_optimal as d_optimal,
    )
    from assent.functional.acquisition import (
        disagreement as disagreement,
    )
    from assent.functional.acquisition import (
        double_thompson as double_thompson,
    )
    from assent.functional.acquisition import (
        fisher_weight as fisher_weight,
    )
    from assent.functional.acquisition import (
        k_centre as k_centre,
    )
    from assent.functional.acquisition import (
        predictive_entropy as predictive_entropy,
    )
    from assent.functional.acquisition import (
        random_projection as random_projection,
    )
    from assent.functional.acquisition import (
        win_probabilities as win_probabilities,
    )
    from assent.functional.advantages import (
        AdvantageEstimate as AdvantageEstimate,
    )
    from assent.functional.advantages import (
        broadcast_to_tokens as broadcast_to_tokens,
    )
    from assent.functional.advantages import (
        frac_reward_zero_std as frac_reward_zero_std,
    )
    from assent.functional.advantages import (
        gae as gae,
    )
    from assent.functional.advantages import (
        group_metrics as group_metrics,
    )
    from assent.functional.advantages import (
        group_relative as group_relative,
    )
    from assent.functional.advantages import (
        leave_one_out as leave_one_out,
    )
    from assent.functional.advantages import (
        token_rewards as token_rewards,
    )
    from assent.functional.agreement import (
        Agreement as Agreement,
    )
    from assent.functional.agreement import (
        Level as Level,
    )
    from assent.functional.agreement import (
        RawAgreement as RawAgreement,
    )
    from assent.functional.agreement import (
        krippendorff_alpha as krippendorff_alpha,
    )
    from assent.functional.agreement import (
        near_agreement as near_agreement,
    )
    from assent.functional.agreement import (
        raw_agreement as raw_agreement,
    )
    from assent.functional.agreement import (
        word_overlap as word_overlap,
    )
    from assent.functional.conciseness import (
        RubricScores as RubricScores,
    )
    from assent.functional.conciseness import (
        conciseness_score as conciseness_score,
    )
    from assent.functional.conciseness import (
        score_rubric as score_rubric,
    )
    from assent.functional.ensemble import (
        Reduction as Reduction,
    )
    from assent.functional.ensemble import (
        combine as combine,
    )
    from assent.functional.ensemble import (
        ensemble_std as ensemble_std,
    )
    from assent.functional.finite import (
        replace_nonfinite as replace_nonfinite,
    )
    from assent.functional.kl import (
        KLEstimator as KLEstimator,
    )
    from assent.functional.kl import (
        SequenceKL as SequenceKL,
    )
    from assent.functional.kl import (
        adapt_beta as adapt_beta,
    )
    from assent.functional.kl import (
        k1 as k1,
    )
    from assent.functional.kl import (
        k2 as k2,
    )
    from assent.functional.kl import (
        k3 as k3,
    )
    from assent.functional.kl import (
        kl_loss as kl_loss,
    )
    from assent.functional.kl import (
        sequence_kl as sequence_kl,
    )
    from assent.functional.logprobs import (
        TokenLogprobs as TokenLogprobs,
    )
    from assent.functional.logprobs import (
        token_logprobs as token_logprobs,
    )
    from assent.functional.losses import (
        kway_loss as kway_loss,
    )
    from assent.functional.losses import (
        pair_loss as pair_loss,
    )
    from assent.functional.losses import (
        pair_metrics as pair_metrics,
    )
    from assent.functional.losses import (
        plackett_luce_loss as plackett_luce_loss,
    )
    from assent.functional.losses import (
        ranking_accuracy as ranking_accuracy,
    )
    from assent.functional.near_identical import (
        differs_by_few_edits as differs_by_few_edits,
    )
    from assent.functional.near_identical import (
        is_near_identical as is_near_identical,
    )
    from assent.functional.near_identical import (
        normalise as normalise,
    )
    from assent.functional.ratings import (
        BradleyTerryFit as BradleyTerryFit,
    )
    from assent.functional.ratings import (
        RatingInterval as RatingInterval,
    )
    from assent.functional.ratings import (
        bradley_terry as bradley_terry,
    )
    from assent.functional.reliability import (
        DawidSkeneFit as DawidSkeneFit,
    )
    from assent.functional.reliability import (
        PeerAgreement as PeerAgreement,
    )
    from assent.functional.reliability import (
        dawid_skene as dawid_skene,
    )
    from assent.functional.reliability import (
        peer_kappa as peer_kappa,
    )
    from assent.functional.sequential import (
        GoldTestState as GoldTestState,
    )
    from assent.functional.sequential import (
        SequentialTest as SequentialTest,
    )
    from assent.functional.sequential import (
        Status as Status,
    )
    from assent.functional.statistics import (
        Interval as Interval,
    )
    from assent.functional.statistics import (
        Limits as Limits,
    )
    from assent.functional.statistics import (
        WinRate as WinRate,
    )
    from assent.functional.statistics import (
        accuracy as accuracy,
    )
    from assent.functional.statistics import (
        bootstrap as bootstrap,
    )
    from assent.functional.statistics import (
        clustered_win_rate as clustered_win_rate,
    )
    from assent.functional.statistics import (
        percentile_limits as percentile_limits,
    )
    from assent.functional.statistics import (
        wilson as wilson,
    )
    from assent.functional.statistics import (
        win_rate as win_rate,
    )
    from assent.functional.surrogate import (
        Surrogate as Surrogate,
    )
    from assent.functional.surrogate import (
        clipped_surrogate as clipped_surrogate,
    )
    from assent.functional.surrogate import (
        clipped_value_loss as clipped_value_loss,
    )
    from assent.functional.surrogate import (
        importance_ratio as importance_ratio,
    )
    from assent.functional.surrogate import (
        log_ratio as log_ratio,
    )
    from assent.functional.whitening import (
        Moments as Moments,
    )
    from assent.functional.whitening import (
        explained_variance as explained_variance,
    )
    from assent.functional.whitening import (
        moments as moments,
    )
    from assent.functional.whitening import (
        whiten as whiten,
    )

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
    "conciseness": (
        "conciseness_score",
        "RubricScores",
        "score_rubric",
    ),
    "ensemble": (
        "combine",
        "ensemble_std",
        "Reduction",
    ),
    "finite": ("replace_nonfinite",),
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
    "sequential": (
        "SequentialTest",
        "Status",
        "GoldTestState",
    ),
    "statistics": (
        "accuracy",
        "bootstrap",
        "clustered_win_rate",
        "Interval",
        "Limits",
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
