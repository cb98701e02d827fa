"""Drawn settings of all strategies, and requests whose drafts the test chooses."""

import dataclasses
from typing import ClassVar

import torch
from hypothesis import strategies as st

from t3d.decoding.completion import DecodeRequest, completions_of
from t3d.decoding.drafting import Drafting
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.jobs import Job
from t3d.decoding.params import DecodeParams
from t3d.decoding.self_speculation import num_to_draft
from t3d.decoding.specification import decode_by_steps, decode_left_to_right

MASK, VOCAB = 37, 40
COMMON = (13, 17, 34)
"""Stop tokens that the tiny model likes to say."""
SAMPLINGS = [{"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.8, "top_k": 9}]
OF_NEXT = {"predicts": "next", "block_size": 1, "context": "causal"}
LEFT_TO_RIGHT = ["left_to_right", *["self_speculative"] * 3]
BY_STEPS = ["low_confidence_static", "low_confidence_dynamic"]


@st.composite
def fields_of_any_strategy(
    draw, strategies=(*LEFT_TO_RIGHT, *BY_STEPS), groups=("last", "all"), fewest=1, most=19
):
    """Plain fields of DecodeParams: type checks draw random numbers, which a strategy must not."""
    size = draw(st.sampled_from([1, 2, 4, 8]))
    fields = {
        "block_size": size,
        "remasking": draw(st.sampled_from(strategies)),
        "max_new_tokens": draw(st.integers(fewest, min(2 * size + 3, most))),
        "seed": draw(st.integers(0, 99)),
    }
    if fields["remasking"] in BY_STEPS:
        fields |= {"steps_per_block": draw(st.integers(1, size)), "confidence_threshold": 0.3}
    else:
        fields |= {
            "context": draw(st.sampled_from(["block", "block", "causal"])),
            "draft_groups": draw(st.sampled_from(groups)),
            "max_draft_tokens": draw(st.sampled_from([0, 0, 1, 3])),
        }
    return fields | draw(st.sampled_from(SAMPLINGS))


@st.composite
def fields_of_next(draw, groups=("last", "all"), fewest=1, most=12):
    """The same of a model that predicts the next token."""
    fields = {
        "remasking": draw(st.sampled_from(["self_speculative", "self_speculative", "left_to_right"])),
        "max_new_tokens": draw(st.integers(fewest, most)),
        "seed": draw(st.integers(0, 99)),
        "draft_groups": draw(st.sampled_from(groups)),
        "max_draft_tokens": draw(st.sampled_from([0, 1, 2, 5])),
    }
    return fields | draw(st.sampled_from(SAMPLINGS)) | OF_NEXT


ANY_STRATEGY = fields_of_any_strategy()


@st.composite
def mixed_cases(draw, max_size=5, kinds=(ANY_STRATEGY,)):
    """Prompts of ragged lengths, each with settings of its own, all of one of these kinds."""
    of_one = draw(st.sampled_from(kinds))
    fields = draw(st.lists(of_one, min_size=1, max_size=max_size))
    token = st.integers(0, VOCAB - 1)
    longest = [9 if "predicts" in own else 3 * own["block_size"] for own in fields]
    return [
        (draw(st.lists(token, min_size=1, max_size=length)), own)
        for length, own in zip(longest, fields, strict=True)
    ]


def jobs_of(cases):
    """One request of each case."""
    return [
        Job(DecodeRequest(id=f"request/{number}", prompt_ids=tuple(prompt)), DecodeParams(**fields))
        for number, (prompt, fields) in enumerate(cases)
    ]


class Forced(Drafting):
    """Drafts what the test says of a request, whatever the model drafts; to the first place left out."""

    drafts_of: ClassVar[dict[str, dict[int, int]]] = {}

    @classmethod
    def of_request(cls, request, params):
        own = super().of_request(request, params)
        own.forced = cls.drafts_of[request.id]
        own.force()
        return own

    def commit(self, drawn, logprobs, stop_token_ids):
        result = super().commit(drawn, logprobs, stop_token_ids)
        self.force()
        return result

    def force(self):
        place, draft = self.num_tokens, []
        while len(draft) < num_to_draft(self.num_tokens, self.end, self.params) and place in self.forced:
            draft.append(self.forced[place])
            place += 1
        self.propose(draft, [1.0] * len(draft))


def with_random_weights(adapter, scale=0.2):
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.normal_(std=scale)
    return adapter


def decode(model, these, drafter=None, stops=(5,), **config):
    engine = Engine(
        model, mask_token_id=MASK, stop_token_ids=stops, config=EngineConfig(**config), drafter=drafter
    )
    return completions_of([job.request for job in these], engine.decode(these))


def without_drafts(job):
    if job.params.remasking != "self_speculative":
        return job
    fields = {"remasking": "left_to_right", "draft_groups": "last"}
    return Job(job.request, dataclasses.replace(job.params, **fields))


def specified(model, job, stops):
    how = {"mask_token_id": MASK, "stop_token_ids": stops}
    if not job.params.is_left_to_right:
        return decode_by_steps(model, job.request, job.params, **how)
    return decode_left_to_right(model, job.request, job.params, has_drafter=True, **how)
