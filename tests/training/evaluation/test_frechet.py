from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torchmetrics.image.fid import _compute_fid

from training.evaluation.frechet import (
    Features,
    distance,
    frechet_distance,
    interval,
    moments,
    resample,
    same_distances,
)


def cloud(seed: int, count: int, width: int, shift: float = 0.0) -> np.ndarray:
    random = np.random.RandomState(seed)
    return (random.normal(size=(count, width)) @ random.normal(size=(width, width)) + shift).astype(np.float32)


def test_two_gaussians_by_hand() -> None:
    """Means 0 and 4, variances 2 and 8: 4^2 + (8^(1/2) - 2^(1/2))^2 = 18."""
    ours, theirs = np.array([[-1.0], [1.0]]), np.array([[2.0], [6.0]])
    assert frechet_distance(moments([ours]), moments([theirs])) == pytest.approx(18)


@pytest.mark.parametrize("count", [40, 400])
def test_distance_is_that_of_scipy_and_of_torchmetrics(count: int) -> None:
    one, other = moments([cloud(0, count, 30)]), moments([cloud(1, count, 30, 0.5)])
    found = frechet_distance(one, other)
    root = np.trace(np.real(sqrtm(one.covariance @ other.covariance)))
    wanted = ((one.mean - other.mean) ** 2).sum() + np.trace(one.covariance + other.covariance) - 2 * root
    assert found == pytest.approx(wanted, rel=1e-9)
    tensors = [torch.from_numpy(array) for each in (one, other) for array in (each.mean, each.covariance)]
    assert found == pytest.approx(float(_compute_fid(*tensors)), rel=1e-9)


def test_set_has_no_distance_from_itself_and_the_same_both_ways() -> None:
    one, other = moments([cloud(0, 200, 50)]), moments([cloud(1, 200, 50)])
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6 * np.trace(one.covariance))
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one))


def test_votes_count_a_video_several_times() -> None:
    first, second, third = (cloud(seed, 20, 5) for seed in range(3))
    voted, repeated = moments([first, second, third], [2, 0, 1]), moments([first, first, third])
    assert voted.count == repeated.count == 60
    assert np.allclose(voted.mean, repeated.mean)
    assert np.allclose(voted.covariance, repeated.covariance)
    assert np.allclose(repeated.covariance, np.cov(np.concatenate([first, first, third]).T))


def test_one_point_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="1 points have no covariance"):
        moments([np.ones((1, 3))])


def test_few_points_are_compared_in_few_dimensions_with_the_same_result() -> None:
    groups = [cloud(seed, 8, 100) for seed in range(4)]
    smaller = same_distances(groups)
    assert [each.shape for each in smaller] == [(8, 32)] * 4
    votes = np.array([1, 2])
    wanted = distance(groups[:2], groups[2:], votes)
    assert distance(smaller[:2], smaller[2:], votes) == pytest.approx(wanted, rel=1e-6)
    assert same_distances(groups * 4)[0] is groups[0]


def test_interval_of_a_mean_is_about_two_standard_errors_wide() -> None:
    values = np.random.RandomState(0).normal(10, 2, 400)
    draws = resample(400, 2000, 0, lambda votes: float(votes @ values / votes.sum()))
    found = interval(float(values.mean()), draws)
    assert found is not None
    assert found[1] - found[0] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert found[0] < values.mean() < found[1]


def test_interval_is_moved_to_its_estimate() -> None:
    assert interval(5.0, [8.0, 9.0, 10.0, 11.0, 12.0]) == pytest.approx((3.1, 6.9))


def test_nothing_is_said_of_one_video_or_of_infinity() -> None:
    assert resample(1, 100, 0, lambda votes: 1.0) == []
    assert interval(1.0, []) is None
    assert interval(float("inf"), [float("inf")]) is None


def test_same_seed_draws_the_same_videos() -> None:
    def drawn(seed: int) -> list[float]:
        return resample(9, 5, seed, lambda votes: float(votes @ np.arange(9)))

    assert drawn(1) == drawn(1) != drawn(2)


def test_features_come_back_as_they_were_added(tmp_path: Path) -> None:
    features, points = Features(tmp_path / "fid", 4), cloud(0, 10, 4)
    features.add(3, "generated", points[:7])
    features.add(3, "generated", points[7:])
    assert np.array_equal(features.read(3, "generated"), points)
    assert features.read(3, "reference").shape == (0, 4)
