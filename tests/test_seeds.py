"""Seeds: the pinned values of stored runs, and a different number for each purpose."""

from random import Random

import pytest
import torch

from assent.seeds import Purpose, derive, derive_epoch, named_rng
from assent.training.batching import generator, select_batch


@pytest.mark.parametrize(
    ("numbers", "seed"),
    [
        ((0, Purpose.GENERATION, 3, 115, 102, 116), 2220438976175304328),
        ((0, Purpose.ROLLOUT, 0), 3749095652667026231),
        ((7, Purpose.ROLLOUT, 12, 1, 3), 6573176449637302011),
        ((7, Purpose.MINIBATCHES, 12, 1), 7320165010534305884),
        ((123, Purpose.RESPONSE), 5543526471809781756),
        ((123, Purpose.RESAMPLING, 4, 2), 2177680298874122258),
    ],
)
def test_derived_seeds_never_change(numbers: tuple[int, Purpose, int], seed: int) -> None:
    """Compare with pinned values: other seeds would change the random numbers of every resumed run."""
    assert derive(*numbers) == seed


def test_order_of_an_epoch_never_changes() -> None:
    assert derive_epoch(0, 0) == 7511128659073436812
    assert select_batch(range(8), 8, 0, seed=0) == [1, 0, 2, 7, 4, 6, 3, 5]
    assert select_batch(range(8), 8, 1, seed=0) == [7, 6, 5, 3, 4, 0, 1, 2]


def test_purposes_have_different_numbers_and_seeds() -> None:
    assert len({int(purpose) for purpose in Purpose.__members__.values()}) == len(Purpose.__members__)
    assert len({derive(seed, purpose, 0) for seed in range(10) for purpose in Purpose}) == 10 * len(Purpose)


def test_generator_is_seeded_by_derive() -> None:
    drawn = torch.rand(3, generator=generator(5, Purpose.ROLLOUT, 1))
    again = torch.rand(3, generator=torch.Generator().manual_seed(derive(5, Purpose.ROLLOUT, 1)))
    assert drawn.tolist() == again.tolist()


def test_named_rng_is_seeded_by_its_name() -> None:
    assert named_rng(3, "arena").random() == Random("3 arena").random()
