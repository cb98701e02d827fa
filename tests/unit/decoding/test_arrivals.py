"""Jobs that come while others are decoded join them, and get what they would get alone."""

import dataclasses
import threading

import pytest

from t3d.decoding.completion import DecodeRequest, DecodingError
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.jobs import Arrivals, Job
from t3d.decoding.params import DecodeParams
from t3d.decoding.specification import decode_as_specified

MASK, STOPS = 37, (13, 17)
SETTINGS = [
    DecodeParams(temperature=1.0, max_new_tokens=9),
    DecodeParams(temperature=0.0, max_new_tokens=14, block_size=8, steps_per_block=2),
    DecodeParams(temperature=1.0, max_new_tokens=7, block_size=2, steps_per_block=1, remasking="random"),
    DecodeParams(temperature=1.0, max_new_tokens=11, remasking="self_speculative", draft_groups="all"),
]


def engine_of(model, **settings):
    return Engine(model, mask_token_id=MASK, stop_token_ids=STOPS, config=EngineConfig(**settings))


def job_of(number, **fields):
    prompt_ids = tuple((7 * number + place) % 30 for place in range(1 + number % 9))
    return Job(
        DecodeRequest(id=f"request/{number}", prompt_ids=prompt_ids, **fields),
        SETTINGS[number % len(SETTINGS)],
    )


def specified(model, job):
    return decode_as_specified(model, job.request, job.params, mask_token_id=MASK, stop_token_ids=STOPS)


@pytest.mark.parametrize(
    "settings", [{"max_batch_size": 3}, {"max_batch_size": 8, "fixed_shapes": True}], ids=str
)
def test_jobs_that_come_while_others_are_decoded_equal_the_specification(tiny_model, settings):
    """One by one, behind every second update of those before them, so that rows are at different steps."""
    jobs, arrivals, done = [job_of(number) for number in range(12)], Arrivals(), {}
    waiting = iter(jobs)
    arrivals.add([next(waiting), next(waiting)])
    for count, update in enumerate(engine_of(tiny_model, **settings).stream(arrivals)):
        if update.completion is not None:
            done[update.id] = update.completion
        if count % 2 == 0 and (job := next(waiting, None)) is not None:
            arrivals.add([job])
        if len(done) == len(jobs):
            arrivals.close()
    assert done == {job.request.id: specified(tiny_model, job) for job in jobs}


def test_an_engine_without_work_waits_for_jobs_of_other_threads(tiny_model):
    engine, arrivals, done = engine_of(tiny_model), Arrivals(), []
    thread = threading.Thread(target=lambda: done.extend(engine.stream(arrivals)), daemon=True)
    thread.start()
    jobs = [job_of(0), job_of(1)]
    for job in jobs:
        thread.join(0.05)
        assert thread.is_alive()
        assert arrivals.add([job])
    arrivals.close()
    assert not arrivals.add([job_of(2)])
    thread.join(60)
    assert not thread.is_alive()
    told = {update.id: update.completion for update in done}
    assert told == {job.request.id: specified(tiny_model, job) for job in jobs}


def test_a_cancelled_request_gives_its_row_to_the_next_and_changes_no_other(tiny_model):
    """One that is being decoded, one that waits for a row, one that is finished, and one that never was."""
    jobs, arrivals, done = [job_of(number) for number in range(6)], Arrivals(), {}
    arrivals.add(jobs)
    engine = engine_of(tiny_model, max_batch_size=2)
    for update in engine.stream(arrivals):
        if update.completion is not None:
            done[update.id] = update.completion
        if update.id == "request/1" and len(done) == 0:
            arrivals.cancel(["request/1", "request/5", "nobody"])
        if update.id == "request/2" and update.completion is not None:
            arrivals.cancel(["request/2"])
        if len(done) == len(jobs):
            arrivals.close()
    for number in (1, 5):
        assert done[f"request/{number}"].error == "cancelled"
    for number in (0, 2, 3, 4):
        assert done[f"request/{number}"] == specified(tiny_model, jobs[number])
    assert engine.stats.requests == 4


def test_a_row_that_is_cancelled_with_none_waiting_closes_its_gap(tiny_model):
    """The last row moves into its slot and goes on as it was."""
    jobs, arrivals, done = [job_of(number) for number in (4, 5, 8)], Arrivals(), {}
    arrivals.add(jobs)
    arrivals.close()
    for update in engine_of(tiny_model).stream(arrivals):
        if update.id == "request/4" and update.completion is None:
            arrivals.cancel(["request/4"])
        if update.completion is not None:
            done[update.id] = update.completion
    assert done["request/4"].error == "cancelled"
    for job in jobs[1:]:
        assert done[job.request.id] == specified(tiny_model, job)


def test_what_can_never_be_decoded_is_refused_as_it_comes(tiny_model):
    engine, arrivals = engine_of(tiny_model, max_model_len=32), Arrivals()
    empty = Job(DecodeRequest(id="empty", prompt_ids=()), SETTINGS[0])
    long = Job(DecodeRequest(id="long", prompt_ids=(1,) * 30), SETTINGS[0])
    wide = DecodeParams(max_new_tokens=8, block_size=32, remasking="self_speculative", draft_groups="all")
    arrivals.add([empty, job_of(0), long, Job(DecodeRequest(id="wide", prompt_ids=(1,)), wide)])
    arrivals.close()
    done = {update.id: update.completion for update in engine.stream(arrivals)}
    assert "empty prompt" in done["empty"].error
    assert "max_model_len is 32" in done["long"].error
    assert "columns of a slot, which has 288. Fix: use smaller blocks" in done["wide"].error
    assert done["request/0"] == specified(tiny_model, job_of(0))


def test_a_failed_forward_ends_those_that_are_in_and_leaves_those_that_come_later(make_model):
    model, arrivals = make_model(), Arrivals()
    arrivals.add([job_of(0), job_of(1)])
    hook = model.register_forward_pre_hook(lambda *_: 1 / 0)
    engine = engine_of(model, max_batch_size=1)
    with pytest.raises(DecodingError, match="ZeroDivisionError") as caught:
        list(engine.stream(arrivals))
    assert caught.value.problems.keys() == {"request/0", "request/1"}
    hook.remove()
    arrivals.add([job_of(2)])
    arrivals.close()
    *_, last = engine.stream(arrivals)
    assert last.completion == specified(model, job_of(2))


def test_requests_under_several_ids_draw_alike_with_one_noise_id(tiny_model):
    """In the engine and in the specification; without it the id is the key."""
    jobs = [job_of(0), Job(DecodeRequest(id="other", prompt_ids=(0,), noise_id="request/0"), SETTINGS[0])]
    done = engine_of(tiny_model).decode(jobs)
    assert done["other"].response_ids == done["request/0"].response_ids
    assert done["other"] == specified(tiny_model, jobs[1])


def test_more_settings_than_rows_ever_hold_at_once_stay_apart(tiny_model):
    """Those that no row has any more are forgotten; every forward still tells the rows' own apart."""
    engine, arrivals = engine_of(tiny_model, max_batch_size=2), Arrivals()
    jobs = [
        Job(
            DecodeRequest(id=str(number), prompt_ids=(number % 30,)),
            DecodeParams(temperature=1 + number / 8, max_new_tokens=2, block_size=2, steps_per_block=1),
        )
        for number in range(24)
    ]
    arrivals.add(jobs)
    arrivals.close()
    done = {update.id: update.completion for update in engine.stream(arrivals)}
    assert done == {job.request.id: specified(tiny_model, job) for job in jobs}


def test_a_late_cancel_of_an_id_that_has_ended_does_not_end_the_next_of_that_id(tiny_model):
    arrivals = Arrivals()
    arrivals.cancel(["request/0"])
    arrivals.add([job_of(0)])
    arrivals.close()
    *_, last = engine_of(tiny_model).stream(arrivals)
    assert last.completion == specified(tiny_model, job_of(0))


def test_two_that_are_cancelled_together_leave_the_rows_of_the_others(tiny_model):
    """The last row, which moves to the place of one that is freed, is cancelled too."""
    jobs, arrivals, done = [job_of(number) for number in range(3)], Arrivals(), {}
    arrivals.add([dataclasses.replace(job, detail="steps") for job in jobs])
    arrivals.close()
    for update in engine_of(tiny_model, max_batch_size=3).stream(arrivals):
        if update.completion is not None:
            done[update.id] = update.completion
        arrivals.cancel(["request/0", "request/2"])
    assert [done[f"request/{number}"].error for number in (0, 2)] == ["cancelled"] * 2
    assert done["request/1"] == specified(tiny_model, jobs[1])


def test_what_is_in_when_it_is_closed_is_still_taken():
    arrivals = Arrivals()
    arrivals.add([job_of(0)])
    arrivals.close()
    assert not arrivals.is_over
    assert arrivals.take(wait=True) == ([job_of(0)], set()) and arrivals.is_over
