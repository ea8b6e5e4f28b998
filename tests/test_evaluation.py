"""The tables against naive second implementations and closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from acn_lightning.evaluation.costs import Encoded, bits_per_dim, bounds, order_nats
from acn_lightning.evaluation.tours import greedy_tour
from acn_lightning.networks import priors
from acn_lightning.networks.distributions import unit_normal
from acn_lightning.networks.priors import MixturePrior, StandardNormalPrior
from acn_lightning.retrieval.index import NeighbourIndex
from tests.conftest import bank_of

# ---------------------------------------------------------------- costs


@pytest.fixture
def world():
    """A bank of 40 codes, 33 of them trained on, and 12 test images with 3 samples each."""
    bank = bank_of(size=40, code_size=3, k_rows=[row for row in range(40) if row % 6])
    index = NeighbourIndex(3, k=4)
    index.build(bank.codes, bank.rows)
    mean = torch.randn(12, 3) * 1.5
    z = mean + torch.randn(3, 12, 3)
    coded = Encoded(torch.arange(12), mean, z, torch.rand(12) * 50)
    return bank, index, coded


def log_normal(z, mean):
    return float((-0.5 * (z - mean) ** 2 - 0.5 * math.log(2 * math.pi)).sum())


def log_prior(prior, z, code):
    return float(prior(code).log_prob(z))


def naive_bounds(coded, prior, bank, order, nearest):
    """One image, one sample, one neighbour at a time."""
    codes = bank.codes[bank.rows]
    tested = range(len(coded.mean))
    samples = range(len(coded.z))

    def kl(i, code):
        given = prior(code).base_dist
        if isinstance(given, Normal):  # KL(N(m, 1) || N(n, s^2)), no samples needed
            s, n = given.scale, given.loc
            return float((s.log() + (1 + (coded.mean[i] - n) ** 2) / (2 * s**2) - 0.5).sum())
        return np.mean(
            [
                log_normal(coded.z[s, i], coded.mean[i]) - log_prior(prior, coded.z[s, i], code)
                for s in samples
            ]
        )

    def marginal(i):
        costs = []
        for s in samples:
            z = coded.z[s, i]
            near = sorted(codes, key=lambda code: float((z - code).norm()))[:nearest]
            p = sum(math.exp(log_prior(prior, z, code)) for code in near) / len(codes)
            costs.append(log_normal(z, coded.mean[i]) - math.log(p))
        return np.mean(costs)

    figures = {"reconstruction": float(coded.distortion.mean())}
    for k in (1, 5, 10):
        figures[f"kl_k{k}"] = np.mean(
            [
                np.mean(
                    [
                        kl(i, code)
                        for code in sorted(codes, key=lambda c: float((c - coded.mean[i]).norm()))[
                            :k
                        ]
                    ]
                )
                for i in tested
            ]
        )
    figures["kl_unconditional"] = np.mean([marginal(i) for i in tested])
    steps = [kl(i, coded.mean[before]) for before, i in itertools.pairwise(order)]
    figures["kl_tour"] = (marginal(order[0]) + sum(steps)) / len(order)
    for total, part in [("ordered", "kl_tour"), ("unordered", "kl_unconditional")]:
        figures[total] = figures["reconstruction"] + figures[part]
    figures["set"] = figures["unordered"] - math.log(math.factorial(len(order))) / len(order)
    return figures


@torch.no_grad()
@pytest.mark.parametrize("nearest", [7, 33, 1000])
@pytest.mark.parametrize("mixtures", [1, 4])
def test_bounds_equal_naive_sums(world, nearest, mixtures):
    bank, index, coded = world
    prior = MixturePrior(3, mixtures=mixtures, width=8)
    order = greedy_tour(coded.mean)
    different = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1)
    found = bounds(coded, prior, bank, index, nearest, [order], order_nats(different))
    naive = naive_bounds(coded, prior, bank, order.tolist(), nearest)
    assert found.keys() == naive.keys()
    for name, value in naive.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name


@torch.no_grad()
def test_a_prior_that_ignores_the_code_costs_the_same_everywhere(world):
    bank, index, coded = world
    found = bounds(coded, StandardNormalPrior(3), bank, index, 5, [greedy_tour(coded.mean)])
    expected = float(coded.mean.square().sum(1).mean() / 2)
    for name in ("kl_k1", "kl_k5", "kl_k10", "kl_tour", "kl_unconditional"):
        assert found[name] == pytest.approx(expected, rel=1e-5), name


@torch.no_grad()
def test_fewer_terms_never_cost_less(world):
    bank, index, coded = world
    prior = MixturePrior(3, mixtures=4, width=8)
    order = [greedy_tour(coded.mean)]
    costs = [
        bounds(coded, prior, bank, index, nearest, order)["kl_unconditional"]
        for nearest in (1, 3, 10, 33)
    ]
    assert costs == sorted(costs, reverse=True)


@torch.no_grad()
def test_of_several_tours_the_cheapest_counts(world):
    bank, index, coded = world
    prior = MixturePrior(3, mixtures=4, width=8)
    orders = [torch.randperm(12) for _ in range(3)]
    alone = [bounds(coded, prior, bank, index, 33, [order])["kl_tour"] for order in orders]
    assert bounds(coded, prior, bank, index, 33, orders)["kl_tour"] == pytest.approx(min(alone))


@torch.no_grad()
@pytest.mark.parametrize(("limit", "sizes"), [(100, [3] * 6 + [2]), (9, [1] * 20), (2**26, [20])])
def test_the_marginal_holds_so_many_distances_at_once(monkeypatch, limit, sizes):
    prior = MixturePrior(3, mixtures=4, width=8)
    codes, z = torch.randn(33, 3), torch.randn(2, 10, 3)
    terms = torch.stack([prior(code).log_prob(z) for code in codes])
    far = torch.stack([(z - code).norm(dim=-1) for code in codes])
    nearest = terms.gather(0, far.topk(7, dim=0, largest=False).indices)
    expected = nearest.logsumexp(0) - math.log(33)
    seen, cdist = [], torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda a, b: seen.append(len(a)) or cdist(a, b))
    monkeypatch.setattr(priors, "DISTANCES", limit)
    torch.testing.assert_close(prior.marginal(codes, nearest=7).log_prob(z), expected)
    assert seen == sizes


@torch.no_grad()
def test_the_marginals_samples_are_of_its_density():
    prior = MixturePrior(2, mixtures=2, width=8)
    codes = torch.randn(9, 2) * 3
    marginal = prior.marginal(codes, nearest=9)
    z = marginal.sample((20_000,))
    # E_q[p/q] = 1 for any p: here a Gaussian, to be reached by the samples
    weight = (unit_normal(torch.zeros(2)).log_prob(z) - marginal.log_prob(z)).exp()
    assert abs(weight.mean() - 1) < 5 * weight.std() / len(z) ** 0.5


def test_a_bank_too_small_for_the_table_is_refused(world):
    _, _, coded = world
    bank = bank_of(size=8, code_size=3)
    index = NeighbourIndex(3, k=2)
    index.build(bank.codes, bank.rows)
    with pytest.raises(ValueError, match="Cannot find 10 neighbours of a code among 8"):
        bounds(coded, StandardNormalPrior(3), bank, index, 5, [])


def test_bits_per_dim():
    assert bits_per_dim(3 * 32 * 32 * math.log(2), 3 * 32 * 32) == pytest.approx(1.0)


def test_the_order_of_equal_images_holds_nothing():
    """Three of one, two of another, one of a third: 6! / (3! 2!) = 60 orders."""
    numbers = torch.tensor([7, 0, 7, 200, 0, 7], dtype=torch.uint8)
    images = numbers.view(6, 1, 1, 1).repeat(1, 1, 2, 2)
    orders = set(itertools.permutations(numbers.tolist()))
    assert order_nats(images) == pytest.approx(math.log(len(orders)) / 6)
    assert len(orders) == 60
