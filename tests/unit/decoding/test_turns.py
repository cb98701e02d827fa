"""Threads that share an engine, or a model through two engines, get what each would get alone."""

import itertools
import sys
import threading
import time

import pytest

from t3d.decoding.completion import DecodeRequest
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.jobs import Job
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.decoding.turns import share_turns, turns_of
from t3d.models.loading import load_model

GREEDY, SAMPLED = (DecodeParams(temperature=value, max_new_tokens=24) for value in (0.0, 1.0))
CHATS = [[{"role": "user", "content": f"how many apples are left {'now ' * n}?"}] for n in range(12)]


def engine_of(model, **settings):
    return Engine(model, mask_token_id=37, stop_token_ids=(13, 17), config=EngineConfig(**settings))


def jobs_of(prompt_lengths, params):
    return [
        Job(DecodeRequest(id=str(length), prompt_ids=tuple(range(length))), params)
        for length in prompt_lengths
    ]


@pytest.fixture(autouse=True)
def _threads_change_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(checkpoint, device="cpu", dtype="float64")


def results_of_threads(calls, seconds=60):
    """What each call returned, all of them started together in threads of their own; errors are raised."""
    start, results, errors = threading.Barrier(len(calls)), [None] * len(calls), []

    def work(index, call):
        try:
            start.wait()
            results[index] = call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    assert not any(thread.is_alive() for thread in threads), "a thread waits for ever"
    if errors:
        raise errors[0]
    return results


@pytest.mark.many_inputs
@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_eight_threads_that_share_an_llm_get_the_answers_of_one(checkpoint, loaded, params):
    """With their texts, and bars as by default; the statistics count every request. The model is new."""
    llm = LLM(load_model(checkpoint, device="cpu", dtype="float64"), max_batch_size=64)
    expected = LLM(loaded, max_batch_size=64).generate(CHATS, params)
    for answers in results_of_threads([lambda: llm.generate(CHATS, params)] * 8):
        assert answers == expected
    assert llm.stats.requests == 8 * len(CHATS)
    assert llm.stats.visible_tokens == 8 * sum(answer.visible_length for answer in expected)


@pytest.mark.many_inputs
def test_two_llms_over_one_loaded_model_in_two_threads_get_their_answers(checkpoint, loaded):
    """Threads change between two layers; each time with a new model, whose first shared forwards count."""
    expected = LLM(loaded).generate(CHATS, GREEDY, progress=False)
    for _ in range(3):
        shared = load_model(checkpoint, device="cpu", dtype="float64")
        shared.model.model.layers[0].register_forward_hook(lambda *_: time.sleep(1e-3))
        llms = [LLM(shared), LLM(shared, max_batch_size=5)]
        calls = [lambda llm=llm: llm.generate(CHATS, GREEDY, progress=False) for llm in llms]
        assert results_of_threads(calls) == [expected, expected]
        assert llms[0].stats.requests == llms[1].stats.requests == len(CHATS)


@pytest.mark.many_inputs
@pytest.mark.parametrize("fixed_shapes", [False, True])
def test_forwards_of_engines_that_share_a_model_take_turns(make_model, fixed_shapes):
    """Never two at once, whichever engine they come from; every call gets its own slots and answers."""
    model, inside, most = make_model(), [], []
    jobs = jobs_of([3, 9, 4, 6], SAMPLED)
    expected = engine_of(model).decode(jobs)

    def enter(*_):
        inside.append(None)
        most.append(len(inside))

    model.register_forward_pre_hook(enter)
    model.register_forward_hook(lambda *_: inside.pop())
    engines = [engine_of(model, max_batch_size=2, fixed_shapes=fixed_shapes) for _ in range(2)]
    calls = [lambda engine=engine: engine.decode(jobs) for engine in engines * 4]
    assert results_of_threads(calls) == [expected] * 8
    assert max(most) == 1


def test_a_stream_that_nobody_reads_on_with_holds_up_no_one(loaded):
    llm = LLM(loaded)
    expected = llm.generate(CHATS[:2], GREEDY, progress=False)
    abandoned = llm.stream(CHATS, GREEDY)
    assert next(abandoned).is_committed
    call = lambda: llm.generate(CHATS[:2], GREEDY, progress=False)  # noqa: E731
    assert results_of_threads([call, call]) == [expected, expected]
    del abandoned  # collected wherever it is
    assert results_of_threads([call]) == [expected]


@pytest.mark.many_inputs
def test_streams_read_in_several_threads_add_up_to_their_completions(loaded):
    llm = LLM(loaded)
    expected = {completion.id: completion for completion in llm.generate(CHATS, SAMPLED, progress=False)}
    for updates in results_of_threads([lambda: list(llm.stream(CHATS, SAMPLED))] * 4):
        assert {u.id: u.completion for u in updates if u.completion} == expected
        for name, own in itertools.groupby(sorted(updates, key=lambda u: u.id), key=lambda u: u.id):
            assert "".join(update.text for update in own) == expected[name].text


def test_a_thread_whose_forward_fails_gives_its_turn_back(make_model):
    model = make_model()
    jobs = jobs_of([3, 9], GREEDY)
    expected = engine_of(model).decode(jobs)
    engine = engine_of(model)
    hook = model.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        results_of_threads([lambda: engine.decode(jobs)])
    hook.remove()
    assert results_of_threads([lambda: engine.decode(jobs)] * 2) == [expected] * 2


def test_each_model_has_turns_of_its_own_as_long_as_it_lives(make_model):
    model, other = make_model(), make_model()
    assert turns_of(model) is turns_of(model)
    assert turns_of(model) is not turns_of(other)


def test_models_that_share_turns_run_one_forward_at_a_time(make_model):
    first, second, third = make_model(), make_model(), make_model()
    share_turns(first, second)
    assert turns_of(first) is turns_of(second) is not turns_of(third)
