"""The exact distributions equal an enumeration by plain loops, which shares no code with them."""

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass

import pytest
import torch

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.theory.exact.chain import Chain, chain_of
from t3d.theory.exact.measures import (
    divergence_of_joints,
    factorisation_error,
    risk,
    total_correlation,
)
from t3d.theory.exact.tables import (
    TableModel,
    exact_posteriors,
    mask_sets,
    model_of,
    product_of_marginals,
    random_model,
)

CLOSE = 1e-10
SIZES = ((2, 2, 2), (2, 4, 2), (3, 2, 2), (3, 3, 3), (2, 4, 4), (4, 2, 1), (2, 3, 3))
"""Vocabulary, length, block size."""
STRATEGIES = ("random", "sequential", "low_confidence_static", "low_confidence_dynamic", "entropy_bounded")


def instance(number: int) -> tuple[TableModel, DecodeParams]:
    """A random model, and one way to decode it; all sizes, strategies and numbers of steps come up."""
    vocab, length, block = SIZES[number % len(SIZES)]
    generator = torch.Generator().manual_seed(number)
    scale = (0.5, 1.5, 3.0)[number % 3]
    model = random_model(vocab, length, block_size=block, scale=scale, generator=generator)
    divisors = [steps for steps in range(1, block + 1) if block % steps == 0]
    return model, DecodeParams(
        block_size=block,
        steps_per_block=divisors[number // len(SIZES) % len(divisors)],
        remasking=STRATEGIES[number % len(STRATEGIES)],
        confidence=("model", "sampled")[number // 2 % 2],
        temperature=(1.0, 0.5)[number // 4 % 2],
        confidence_threshold=0.55,
        entropy_bound=0.6,
    )


State = tuple[int, ...]


@dataclass
class Enumeration:
    """All trajectories x_T, ..., x_0 with their probabilities, and sums of them."""

    model: TableModel
    paths: dict[tuple[State, ...], float]

    def at(self, t: int, num_steps: int) -> dict[State, float]:
        found = defaultdict(float)
        for path, prob in self.paths.items():
            found[path[min(num_steps - t, len(path) - 1)]] += prob
        return found

    def pairs(self, s: int, t: int, num_steps: int) -> dict[State, dict[State, float]]:
        """By x_t: p(x_s, x_t)."""
        found = defaultdict(lambda: defaultdict(float))
        for path, prob in self.paths.items():
            early, late = (path[min(num_steps - u, len(path) - 1)] for u in (t, s))
            found[early][late] += prob
        return found


def probabilities(model: TableModel, state: State, i: int, temperature: float) -> list[float]:
    row = model.table.numpy()[state][i].tolist()
    powers = [p ** (1 / temperature) for p in row]
    return [p / sum(powers) for p in powers]


def next_states(model: TableModel, state: State, params: DecodeParams) -> dict[State, float]:
    """Draw every token of the block in every way, and commit as the strategy's definition says."""
    mask = model.vocab_size
    first = state.index(mask) // params.block_size * params.block_size
    active = [i for i in range(first, first + params.block_size) if state[i] == mask]
    planned = min(len(active), params.block_size // params.steps_per_block)
    own = {i: probabilities(model, state, i, 1.0) for i in active}
    sampled = {i: probabilities(model, state, i, params.temperature) for i in active}
    seen = own if params.confidence == "model" else sampled
    found = defaultdict(float)
    for draw in itertools.product(range(mask), repeat=len(active)):
        prob = math.prod(sampled[i][v] for i, v in zip(active, draw, strict=True))
        if params.remasking == "random":
            sets = list(itertools.combinations(active, planned))
        else:
            surest = sorted(active, key=lambda i: (-seen[i][draw[active.index(i)]], i))
            chosen = surest[:planned]
            if params.remasking == "sequential":
                chosen = active[:planned]
            elif params.remasking == "low_confidence_dynamic":
                limit = params.confidence_threshold
                chosen = {*chosen, *(i for i in active if seen[i][draw[active.index(i)]] > limit)}
            elif params.remasking == "entropy_bounded":
                entropy = {i: -sum(p * math.log(p) for p in own[i] if p) for i in active}
                rising = sorted(active, key=lambda i: (entropy[i], i))
                count, total = 0, 0.0
                while count < len(rising) and total + entropy[rising[count]] < params.entropy_bound:
                    total += entropy[rising[count]]
                    count += 1
                chosen = rising[: max(count, planned)]
            sets = [tuple(chosen)]
        for committed in sets:
            after = list(state)
            for i in committed:
                after[i] = draw[active.index(i)]
            found[tuple(after)] += prob / len(sets)
    return found


def enumerate_paths(model: TableModel, params: DecodeParams) -> Enumeration:
    mask = model.vocab_size
    waiting, paths = {((mask,) * model.length,): 1.0}, defaultdict(float)
    known = {}
    while waiting:
        longer = defaultdict(float)
        for path, prob in waiting.items():
            if mask not in path[-1]:
                paths[path] += prob
                continue
            if path[-1] not in known:
                known[path[-1]] = next_states(model, path[-1], params)
            for state, step in known[path[-1]].items():
                longer[(*path, state)] += prob * step
        waiting = longer
    return Enumeration(model, paths)


def states_of(tables: dict, mask: int) -> dict[State, float]:
    """Plain numbers by state, from tables of which masked positions have axes of length 1."""
    found = {}
    for masked, table in tables.items():
        array = table.numpy()
        for index in itertools.product(*(range(n) for n in table.shape)):
            state = tuple(mask if i in masked else v for i, v in enumerate(index))
            found[state] = float(array[index])
    return found


def assert_same(found: dict, expected: dict) -> None:
    for key in found.keys() | expected.keys():
        assert abs(found.get(key, 0.0) - expected.get(key, 0.0)) <= CLOSE, key


def kl(p: dict, q: dict) -> float:
    return sum(prob * math.log(prob / q[key]) for key, prob in p.items() if prob > 0)


def product(p: dict[State, float]) -> dict[State, float]:
    """Product of the marginals of a distribution over states, at its own support."""
    sites = [defaultdict(float) for _ in next(iter(p))]
    for state, prob in p.items():
        for site, value in zip(sites, state, strict=True):
            site[value] += prob
    return {state: math.prod(site[value] for site, value in zip(sites, state, strict=True)) for state in p}


def conditional(pairs: dict[State, float]) -> dict[State, float]:
    return {state: prob / sum(pairs.values()) for state, prob in pairs.items()}


def assert_paths_and_marginals(chain: Chain, listed: Enumeration) -> None:
    mask = chain.vocab_size
    paths = {}
    for sets, table in chain.paths().items():
        array = table.numpy()
        for index in itertools.product(*(range(n) for n in table.shape)):
            states = tuple(tuple(mask if i in masked else v for i, v in enumerate(index)) for masked in sets)
            paths[states] = float(array[index])
    assert_same(paths, listed.paths)
    for t in range(chain.num_steps + 1):
        assert_same(states_of(chain.marginal(t), mask), listed.at(t, chain.num_steps))


def assert_posteriors_and_measures(chain: Chain, listed: Enumeration, student: TableModel) -> None:
    mask, posteriors = chain.vocab_size, chain.posteriors()
    one_shot = {masked: student.one_shot(masked) for masked in posteriors}
    arrays, rows = {masked: table.numpy() for masked, table in posteriors.items()}, student.table.numpy()
    for t in range(1, chain.num_steps + 1):
        pairs = listed.pairs(0, t, chain.num_steps)
        expected = {"tc": 0.0, "forward": 0.0, "reverse": 0.0}
        for state, joint in pairs.items():
            weight, posterior = sum(joint.values()), conditional(joint)
            masked = frozenset(i for i in range(chain.length) if state[i] == mask)
            everything = {}
            for draw in itertools.product(range(mask), repeat=chain.length):
                if all(v in (mask, d) for v, d in zip(state, draw, strict=True)):
                    everything[draw] = math.prod(rows[state][i, draw[i]] for i in masked)
                    prob = float(arrays[masked][draw])
                    assert abs(prob - posterior.get(draw, 0.0)) <= CLOSE
            expected["tc"] += weight * kl(posterior, product(posterior))
            expected["forward"] += weight * kl(posterior, everything)
            expected["reverse"] += weight * kl(everything, posterior)
        assert total_correlation(chain, s=0, t=t) == pytest.approx(expected["tc"], abs=CLOSE)
        assert factorisation_error(chain.marginal(t), posteriors) == pytest.approx(expected["tc"], abs=CLOSE)
        for direction in ("forward", "reverse"):
            found = risk(chain.marginal(t), posteriors, one_shot, direction)
            assert found == pytest.approx(expected[direction], abs=CLOSE)
        for s in range(1, t):
            tc = sum(
                sum(joint.values()) * kl(conditional(joint), product(conditional(joint)))
                for joint in listed.pairs(s, t, chain.num_steps).values()
            )
            assert total_correlation(chain, s=s, t=t) == pytest.approx(tc, abs=CLOSE)


@pytest.mark.many_inputs
def test_a_hundred_random_instances_equal_their_enumeration():
    for number in range(100):
        model, params = instance(number)
        chain, listed = chain_of(model, params), enumerate_paths(model, params)
        assert_paths_and_marginals(chain, listed)
        student, _ = instance(number + 700)  # of the same size: 7 sizes, taken in turn
        assert_posteriors_and_measures(chain, listed, student)


@pytest.mark.parametrize("remasking", STRATEGIES)
def test_the_largest_joint_adds_up_to_one(remasking):
    model = random_model(3, 4, block_size=2, scale=1.0, generator=torch.Generator().manual_seed(5))
    params = DecodeParams(block_size=2, steps_per_block=1, remasking=remasking, temperature=1.0)
    chain = chain_of(model, params)
    for t in range(chain.num_steps + 1):
        assert sum(float(table.sum()) for table in chain.joint(t).values()) == pytest.approx(1, abs=1e-12)
    assert divergence_of_joints(chain.joint(1), chain.joint(1)) == 0


def test_at_temperature_0_the_trajectory_is_one_and_nothing_is_lost_by_drawing_at_once():
    model, _ = instance(4)
    chain = chain_of(model, DecodeParams(block_size=4, steps_per_block=4, temperature=0))
    assert sorted(chain.clean().flatten().tolist())[-2:] == [0.0, 1.0]
    assert total_correlation(chain, s=0, t=4) == 0


def test_the_factorised_optimum_has_the_least_forward_risk():
    """No other table is below it, and its risk is the total correlation."""
    model, params = instance(3)
    chain = chain_of(model, params)
    posteriors = chain.posteriors()
    best = model_of(posteriors, otherwise=model)
    for t in range(1, chain.num_steps + 1):
        least = risk(chain.marginal(t), posteriors, {masked: best.one_shot(masked) for masked in posteriors})
        assert least == pytest.approx(total_correlation(chain, s=0, t=t), abs=CLOSE)
        for number in range(20):
            other, _ = instance(7 * number + 3)
            student = {masked: other.one_shot(masked) for masked in posteriors}
            assert risk(chain.marginal(t), posteriors, student) >= least


def test_a_consistent_model_in_any_order_of_single_tokens_has_its_own_distribution():
    """Of a table of true posteriors the order does not matter, and every posterior is the true one."""
    model, _ = instance(3)
    clean = chain_of(model, DecodeParams(block_size=3, steps_per_block=3, temperature=1.0)).clean()
    posteriors = exact_posteriors(clean)
    oracle = model_of(posteriors, otherwise=model)
    for remasking in ("random", "sequential"):
        params = DecodeParams(block_size=3, steps_per_block=3, remasking=remasking, temperature=1.0)
        chain = chain_of(oracle, params)
        for masked, found in chain.posteriors().items():
            assert torch.allclose(found, posteriors[masked], atol=CLOSE, rtol=0)


def test_positions_of_a_product_are_independent():
    model, _ = instance(3)
    masked = frozenset({0, 2})
    joint = model.one_shot(masked)
    assert torch.allclose(product_of_marginals(joint, masked), joint, atol=1e-15, rtol=0)
    assert len(mask_sets(4, 2)) == 6 and len(mask_sets(4)) == 16


@pytest.mark.parametrize(
    ("params", "field"),
    [
        (DecodeParams(block_size=3, steps_per_block=3), "block_size"),
        (DecodeParams(block_size=4, steps_per_block=3), "steps_per_block"),
        (DecodeParams(remasking="left_to_right"), "remasking"),
        (DecodeParams(top_k=2), "top_k"),
        (DecodeParams(top_p=0.5), "top_p"),
    ],
)
def test_strategies_that_cannot_be_enumerated_are_refused(params, field):
    model, _ = instance(4)
    with pytest.raises(InputError, match=field):
        chain_of(model, params)


@pytest.mark.parametrize(
    "table",
    [
        torch.full((3, 3, 2, 3), 1 / 3, dtype=torch.float64),
        torch.full((3, 3, 2, 2), 0.5),
        torch.full((3, 3, 2, 2), 0.4, dtype=torch.float64),
        torch.full((6, 1, 5), 0.2, dtype=torch.float64),
        torch.full((*[3] * 9, 9, 2), 0.5, dtype=torch.float64),
    ],
    ids=["shape", "dtype", "sum", "vocabulary of 5", "length of 9"],
)
def test_tables_that_are_no_model_are_refused(table):
    with pytest.raises(InputError, match="table"):
        TableModel(table=table)


def test_more_trajectories_than_fit_are_refused_and_their_sums_are_not():
    model = random_model(2, 8, block_size=8, scale=1.0, generator=torch.Generator().manual_seed(1))
    params = DecodeParams(block_size=8, steps_per_block=8, remasking="random", temperature=1.0)
    chain = chain_of(model, params)
    assert float(chain.clean().sum()) == pytest.approx(1, abs=1e-12)
    assert len(chain.steps) == 2**8 - 1
    with pytest.raises(InputError, match="too many"):
        chain.paths()
