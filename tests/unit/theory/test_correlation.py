"""Theorem 4.5: with its assumptions, without each of them, for factorised students, and for what students
decode."""

import math

import pytest
import torch

from t3d.decoding.params import DecodeParams
from t3d.theory.correlation import nearest_markov, tilted, total_correlation_of
from t3d.theory.exact.chain import chain_of
from t3d.theory.exact.measures import divergence, factorisation_error, risk, total_correlation
from t3d.theory.exact.tables import model_of, product_of_marginals, random_model
from t3d.theory.instances import (
    EQUAL_PAIR,
    FAIR_PAIR,
    MORE_CORRELATED_STUDENT,
    MORE_EQUAL_PAIR,
    OFTEN_EQUAL,
    RARELY_EQUAL,
    SURE_THEN_UNSURE,
    independent_model,
)
from t3d.theory.searches import (
    both_correlations,
    correlated,
    search_families,
    search_families_of_two,
    whole_block,
)

CLOSE = 1e-12
PAIR = frozenset({0, 1})


def pair(probs) -> torch.Tensor:
    return probs.reshape(2, 2)


def number(value: torch.Tensor) -> float:
    assert value.numel() == 1
    return value.item()


@pytest.mark.many_inputs
def test_theorem_4_5_holds_in_families_that_meet_its_assumptions():
    found = search_families(number=20)
    assert found.violations == 0 and found.instances == 100


def test_between_product_and_teacher_the_pythagorean_inequality_holds():
    """Lemma B.7: with equality in the exponential family of Markov chains, strictly at the end of a
    segment."""
    generator, masked = torch.Generator().manual_seed(1), frozenset(range(4))
    for _ in range(10):
        teacher = correlated(4, generator)
        product = product_of_marginals(teacher, masked)
        whole = number(divergence(teacher, product, masked))
        for order in range(4):
            best = nearest_markov(teacher, masked, order)
            parts = number(divergence(teacher, best, masked)) + number(divergence(best, product, masked))
            assert whole == pytest.approx(parts, abs=CLOSE)
        end = tilted(teacher, masked, 0.5)
        assert number(divergence(teacher, end, masked)) + number(divergence(end, product, masked)) < whole
        powers = torch.linspace(0, 0.5, 6, dtype=torch.float64).tolist()
        distances = [number(divergence(teacher, tilted(teacher, masked, power), masked)) for power in powers]
        assert distances == sorted(distances, reverse=True)  # so the end is the nearest


def test_at_each_state_of_a_teacher_the_best_markov_student_has_at_most_its_correlation():
    """The theorem as stated: the mean over the states that a decoding teacher visits."""
    model = random_model(2, 4, block_size=4, scale=2.0, generator=torch.Generator().manual_seed(2))
    teacher = chain_of(model, whole_block("low_confidence_static", 4))
    posteriors = teacher.posteriors()
    for t in range(1, 5):
        marginal = teacher.marginal(t)
        best = {masked: nearest_markov(posteriors[masked], masked, 1) for masked in marginal}
        assert factorisation_error(marginal, best) <= factorisation_error(marginal, posteriors) + CLOSE


def test_of_a_factorised_student_the_theorem_says_nothing():
    """Eq. 2 gives it no total correlation at any state, whatever it has learnt: 0 is below everything."""
    generator = torch.Generator().manual_seed(3)
    teacher = chain_of(
        random_model(2, 3, block_size=3, scale=2.0, generator=generator), whole_block("random", 3)
    )
    anybody = random_model(2, 3, block_size=3, scale=2.0, generator=generator)
    one_shot = {masked: anybody.one_shot(masked) for masked in teacher.posteriors()}
    for t in (1, 2, 3):
        marginal = teacher.marginal(t)
        assert abs(factorisation_error(marginal, one_shot)) < CLOSE
        assert risk(marginal, teacher.posteriors(), one_shot) >= total_correlation(teacher, s=0, t=t)


def test_of_an_unlimited_student_it_is_an_equality():
    """Assumption B.5 with nothing to bound the family: the optimum is the teacher."""
    teacher = correlated(3, torch.Generator().manual_seed(4))
    masked = frozenset(range(3))
    own = number(total_correlation_of(teacher, masked))
    assert number(total_correlation_of(nearest_markov(teacher, masked, 2), masked)) == pytest.approx(own)


def test_without_log_convexity_or_the_product_in_the_family_or_the_optimum_it_fails():
    """One instance for all three: the family {product of marginals, q}, {q} alone, or q for the optimum p.

    p = (.4, .1, .1, .4): TC = .8 ln 1.6 + .2 ln .4 = 0.193; q = (.45, .05, .05, .45): .9 ln 1.8 + .1 ln .2 =
    0.368. KL(p || q) = .8 ln(.4/.45) + .2 ln(.1/.05) = 0.044 is below KL(p || product) = 0.193.
    """
    p, q = pair(EQUAL_PAIR), pair(MORE_EQUAL_PAIR)
    product = product_of_marginals(p, PAIR)
    assert torch.allclose(product, pair(FAIR_PAIR))
    tc, other = number(total_correlation_of(p, PAIR)), number(total_correlation_of(q, PAIR))
    assert tc == pytest.approx(0.8 * math.log(1.6) + 0.2 * math.log(0.4))
    assert other == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))
    away = number(divergence(p, q, PAIR))
    assert away == pytest.approx(0.8 * math.log(8 / 9) + 0.2 * math.log(2))
    assert away < number(divergence(p, product, PAIR)) and other > tc


def test_without_equal_marginals_it_fails_for_a_student_with_the_teachers_own_posteriors():
    """Only how often x_t is a state of dependent tokens differs: 0.1 and 0.9 times 0.193 nats."""
    chains = [chain_of(model, whole_block("sequential", 3)) for model in (RARELY_EQUAL, OFTEN_EQUAL)]
    for masked, posterior in chains[0].posteriors().items():
        if 0 not in masked:
            assert torch.allclose(posterior, chains[1].posteriors()[masked])
    teacher, student = (total_correlation(chain, s=0, t=2) for chain in chains)
    one = number(total_correlation_of(pair(EQUAL_PAIR), PAIR))
    assert teacher == pytest.approx(0.1 * one) and student == pytest.approx(0.9 * one)
    sums = [sum(both_correlations(chain, t) for t in (1, 2, 3)) for chain in chains]
    assert sums[1] == pytest.approx(9 * sums[0])


def test_what_a_trained_student_decodes_may_be_more_correlated_than_its_teacher():
    """Single tokens in random order, the student's predictions the optimum of Eq. 5: TC(x_0 | x_T)
    doubles."""
    params = whole_block("random", 2)
    teacher = chain_of(MORE_CORRELATED_STUDENT, params)
    student = chain_of(model_of(teacher.posteriors(), otherwise=MORE_CORRELATED_STUDENT), params)
    assert total_correlation(teacher, s=0, t=2) == pytest.approx(0.06650, abs=1e-5)
    assert total_correlation(student, s=0, t=2) == pytest.approx(0.13151, abs=1e-5)


def test_the_confidence_order_makes_tokens_surer_than_the_model_and_each_round_does_it_again():
    """Independent tokens, 0 with .9 and .6. A first 0 is the surest and stays; a first 1 is the least
    sure, so the second is committed and the first drawn anew: .9 + .1 * .9 = .99 in all. The best student
    says .99 at x_T and .9 beside an open second token, which comes up with .01: .99 + .01 * .9 = .999.
    Other orders change nothing."""
    for order, expected in (("low_confidence_static", (0.99, 0.999)), ("random", (0.9, 0.9))):
        model = SURE_THEN_UNSURE
        for prob in expected:
            chain = chain_of(model, whole_block(order, 2))
            assert chain.clean().sum(1).tolist() == pytest.approx([prob, 1 - prob], abs=CLOSE)
            assert chain.clean().sum(0).tolist() == pytest.approx([0.6, 0.4], abs=CLOSE)
            model = model_of(chain.posteriors(), otherwise=model)


def test_rounds_with_all_steps_keep_what_is_decoded_left_to_right_and_sharpen_it_in_confidence_order():
    """Entropy of x_0 of six random teachers and of their factorised optima, one token per step."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        model = random_model(2, 3, block_size=3, scale=1.5, generator=generator)
        for order in ("sequential", "low_confidence_static"):
            teacher = chain_of(model, whole_block(order, 3))
            student = chain_of(model_of(teacher.posteriors(), otherwise=model), whole_block(order, 3))
            before, after = (float(torch.special.entr(chain.clean()).sum()) for chain in (teacher, student))
            if order == "sequential":
                assert after == pytest.approx(before, abs=CLOSE)
            else:
                assert after < before


@pytest.mark.parametrize(
    ("knows_only_visited", "expected"),
    [(False, (1.040, 0.748, 0.677, 0.610, 0.583)), (True, (1.040, 0.771, 0.689, 0.644, 0.596))],
)
def test_rounds_in_confidence_order_lose_entropy_whatever_is_said_where_no_teacher_goes(
    knows_only_visited, expected
):
    """The mean over twenty teachers of four binary tokens, four rounds. Where its teacher never goes, a
    student either has the posterior of decoding on from there, or keeps its teacher's predictions."""
    generator, found = torch.Generator().manual_seed(0), [0.0] * 5
    for _ in range(20):
        model = random_model(2, 4, block_size=4, scale=1.5, generator=generator)
        for number in range(5):
            chain = chain_of(model, whole_block("low_confidence_static", 4))
            found[number] += float(torch.special.entr(chain.clean()).sum()) / 20
            posteriors = chain.posteriors()
            if knows_only_visited:
                for masked in [masked for masked in posteriors if masked]:
                    never = chain.marginal(len(masked))[masked] == 0
                    posteriors[masked] = posteriors[masked].masked_fill(never, torch.nan)
            model = model_of(posteriors, otherwise=model)
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_lower_temperature_need_not_lower_the_correlation_of_rollouts_but_0_ends_it():
    """Mean over six random teachers, left to right: 0.18 at temperature 1, 0.24 at 0.5, nothing at 0."""
    generator = torch.Generator().manual_seed(0)
    models = [random_model(2, 3, block_size=3, scale=1.5, generator=generator) for _ in range(6)]
    found = {}
    for temperature in (1.0, 0.5, 0.0):
        params = [
            DecodeParams(block_size=3, steps_per_block=3, remasking=order, temperature=temperature)
            for order in ("sequential", "low_confidence_static")
        ]
        found[temperature] = [
            sum(total_correlation(chain_of(model, one), s=0, t=3) for model in models) / 6 for one in params
        ]
    assert [found[1.0][0], found[0.5][0]] == pytest.approx([0.18, 0.24], abs=0.005)
    assert found[0.5][1] < found[1.0][1]
    assert found[0.0] == [0, 0]


def test_the_second_term_counts_the_masks_themselves():
    """Of fair coins TC(x_1 | x_2) is ln 2 in random order, since which token is open tells the other is not;
    left to right it is 0. So is TC(x_0 | x_t), in any order."""
    for order, expected in (("random", math.log(2)), ("sequential", 0.0)):
        chain = chain_of(independent_model(2), whole_block(order, 2))
        assert total_correlation(chain, s=1, t=2) == pytest.approx(expected, abs=CLOSE)
        assert total_correlation(chain, s=0, t=2) == pytest.approx(0, abs=CLOSE)


@pytest.mark.many_inputs
def test_families_that_are_not_log_convex_often_violate_it():
    found = search_families_of_two(number=40)
    assert 10 <= found.violations < found.instances
