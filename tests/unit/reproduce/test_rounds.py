"""Rounds: who rolls out, whose weights a training begins with, and what it reads."""

from contextlib import contextmanager

import pytest

from t3d.decoding.params import DecodeParams
from t3d.decoding.sample_choice import SampleChoice
from t3d.problems.problem import Problem
from t3d.reproduce.pipeline import Pipeline
from t3d.reproduce.rounds import Round, run_rounds
from t3d.training.config import T3DConfig
from t3d.trajectory import Trajectory, write_trajectories
from t3d.work.kept import Product

PARAMS = [DecodeParams(steps_per_block=steps, max_new_tokens=4) for steps in (4, 2, 1)]


class Recorder(Pipeline):
    """Notes what it is asked for, and writes a record per problem."""

    def __init__(self):
        super().__init__(device="cpu", dtype="float32", batch_size=1)
        self.rolled, self.trained = [], []

    def roll_out(self, product, source, problems, params, *, style="plain", kind="math", choice):
        self.rolled.append((str(source), [problem.id for problem in problems], params, (style, kind), choice))
        records = [
            Trajectory(
                id=problem.id,
                prompt_ids=(1, 2, 3, 4),
                response_ids=(5, 6, 7, 8),
                step_map=(1, 2, 3, 4),
                visible_length=4,
                finish_reason="length",
                block_size=4,
                mask_token_id=9,
            )
            for problem in problems
        ]
        product.make(lambda: write_trajectories(product.path, records))

    def train(self, product, source, trajectories, config, *, soft_targets_from, own_temperature):
        assert (soft_targets_from, own_temperature) == ("teacher", None)
        self.trained.append((str(source), [one.id for one in trajectories()], config.output_dir))


@pytest.fixture
def rounds(tmp_path):
    def product(name):
        return Product(path=tmp_path / name, record=tmp_path / "stages" / f"{name}.json", plan={})

    return [
        Round(
            number=number,
            rollouts=product(f"rollouts-{number}"),
            training=product(f"student-{number}"),
            problems=[Problem(id=f"{number}{letter}", question="?") for letter in "ab"],
            params=PARAMS[number - 1],
            config=T3DConfig(output_dir=str(tmp_path / f"checkpoints-{number}"), use_cpu=True),
            style="paper",
            choice=SampleChoice(num_samples=number),
        )
        for number in (1, 2, 3)
    ]


def run(rounds, **how):
    pipeline, stages = Recorder(), []

    @contextmanager
    def running(name, product):
        stages.append((name, product.path.name))
        yield

    student = run_rounds(pipeline, "teacher", rounds, running=running, **how)
    assert student == rounds[-1].training.path
    return pipeline, stages


def test_the_teacher_rolls_out_first_and_then_the_student_of_the_round_before(rounds):
    pipeline, stages = run(rounds)
    sources = ["teacher", *(str(one.training.path) for one in rounds[:2])]
    assert [source for source, *_ in pipeline.rolled] == sources
    assert [source for source, *_ in pipeline.trained] == sources
    assert [ids for _, ids, _ in pipeline.trained] == [["1a", "1b"], ["2a", "2b"], ["3a", "3b"]]
    assert [params for _, _, params, *_ in pipeline.rolled] == PARAMS
    assert [choice.num_samples for *_, choice in pipeline.rolled] == [1, 2, 3]
    assert {put for *_, put, _ in pipeline.rolled} == {("paper", "math")}
    assert [folder[-1] for *_, folder in pipeline.trained] == ["1", "2", "3"]
    assert stages[:3] == [
        ("rollout round 1", "rollouts-1"),
        ("distil round 1", "student-1"),
        ("rollout round 2", "rollouts-2"),
    ]


def test_a_training_may_begin_with_the_teachers_weights_though_the_student_rolls_out(rounds):
    pipeline, _ = run(rounds, start="teacher")
    assert [source for source, *_ in pipeline.trained] == ["teacher"] * 3
    assert [source for source, *_ in pipeline.rolled][1:] == [str(one.training.path) for one in rounds[:2]]


def test_records_of_old_rounds_are_learnt_again(rounds):
    pipeline, _ = run(rounds, num_old_rounds=1)
    assert [" ".join(ids) for _, ids, _ in pipeline.trained] == ["1a 1b", "1a 1b 2a 2b", "2a 2b 3a 3b"]
    pipeline, _ = run(rounds, num_old_rounds=5)
    assert [len(ids) for _, ids, _ in pipeline.trained] == [2, 4, 6]
