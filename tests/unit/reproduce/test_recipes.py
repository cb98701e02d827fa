"""Which cells the tables take: those that the paper prints, with the same budget for every method."""

import dataclasses

import pytest

from t3d.cli.reproduce import ReproduceCell
from t3d.decoding.teacher_scorer import TeacherScorer
from t3d.errors import InputError
from t3d.reproduce.paper import LARGE, SMALL, paper_values
from t3d.reproduce.recipes import (
    MAIN_METHODS,
    ORIGINAL,
    TABLES,
    CellSpec,
    StudentSpec,
    cell_command,
    demands,
    grid_cells,
)
from t3d.reproduce.resolve import resolve_records, resolve_student, training_fields
from t3d.reproduce.runner import added_row
from t3d.reproduce.settings import GRID_SETTINGS
from t3d.reproduce.students import Workshop
from t3d.reproduce.suites import MINI, load_suite
from t3d.training.config import T3DConfig
from t3d.training.ignored import check_training_fields
from t3d.training.presets import PRESETS

SDAR = load_suite("sdar", "data")


@pytest.mark.parametrize("suite", [MINI, SDAR], ids=["mini", "sdar"])
@pytest.mark.parametrize("table", TABLES)
def test_every_printed_cell_has_one_of_ours(suite, table):
    found = demands(suite, [table], 1, suite.full)
    ours = {
        (suite.teachers[demand.teacher], demand.student(0, None).name, setting)
        for demand in found
        for setting in demand.settings
    }
    prints = {
        (place.model, place.method, place.setting)
        for place in paper_values()
        if place.table == table and place.task != "average"
    }
    assert prints <= ours
    assert {model for model, *_ in ours} == ({LARGE, SMALL} if table in (1, 2) else {LARGE})


def test_seeds_go_to_the_main_teacher_and_of_all_tables_to_the_first_two():
    for demand in demands(MINI, TABLES, 3, MINI.full):
        is_several = demand.table in (1, 2) and demand.teacher == "mini" and demand.samples_per_prompt == 1
        assert demand.seeds == ((0, 1, 2) if is_several else (0,))
    assert {demand.seeds for demand in demands(MINI, [5], 3, MINI.full)} == {(0, 1, 2)}


def test_a_method_made_for_rounds_says_how_many_and_which_rollouts_it_learns():
    """Unless it is told otherwise; the first round's records are those of all methods, if all are kept."""
    flags = {"settings": ("B8-T8",), "teacher": "mini", "learning_rate": 1e-3}
    records = {}
    for method, count in (("t3d", 1), ("t3d-plus", 3), ("t3d-plus-verified", 3)):
        suite, cell = ReproduceCell(method=method, **flags).spec()
        assert cell.student.num_rounds == count
        assert "--num-rounds" not in cell_command(suite, cell, quick=False)
        other = dataclasses.replace(cell, student=cell.student.after(2))
        assert "--num-rounds 2" in cell_command(suite, other, quick=False)
        assert ReproduceCell(method=method, num_rounds=2, **flags).spec()[1] == other
        records[method] = resolve_records(suite, suite.full, cell.student.rounds[0])
    assert records["t3d"].hash == records["t3d-plus"].hash != records["t3d-plus-verified"].hash
    assert records["t3d-plus-verified"].full["filter"] == "correct" and "filter" not in records["t3d"].full


def test_each_round_rolls_out_in_the_blocks_and_steps_of_its_setting():
    """Greedily and as long as the suite's rollouts; a round does not depend on those behind it."""
    flags = {"method": "t3d", "settings": ("B8-T8",), "learning_rate": 1e-3, "num_rounds": 2}
    suite, cell = ReproduceCell(rollout_settings=("B4-T1", "B8-T8"), **flags).spec()
    first, last = cell.student.rounds
    assert last == cell.student and first.rollout_settings == ("B4-T1",)
    decoded = [resolve_records(suite, suite.full, one).full["decode"] for one in (first, last)]
    assert [(one["block_size"], one["steps_per_block"]) for one in decoded] == [(4, 4), (8, 1)]
    assert all(one["temperature"] == suite.rollout.temperature for one in decoded)
    assert decoded[0] == suite.rollout.record()
    assert (
        resolve_student(suite, suite.full, last).full["before"]
        == resolve_student(suite, suite.full, first).hash
    )
    assert "--rollout-settings B4-T1 B8-T8" in cell_command(suite, cell, quick=False)
    for wrong, message in (
        ({"rollout_settings": ("B8-T8",)}, r"num_rounds=2\. Fix: name 2 settings"),
        (
            {"rollout_settings": ("B8-T8", "B8-T9")},
            "rollout_settings='B8-T9': no block size and tokens",
        ),
        (
            {"rollout_settings": ("B8-T8", "B4-dynamic")},
            "='B4-dynamic': .* Fix: use some of B4-T1, B4-T2",
        ),
        ({"rollout_settings": ("B4-T1", "B6-T1")}, "rollout_settings='B6-T1': no block size and tokens"),
        ({"rollout_settings": ("B4-T1", "B8-T8-temperature-hot")}, "temperature-hot': no block size and"),
        ({"rollout_settings": ("B8-T8",), "method": "sft", "num_rounds": 1}, "learns no rollouts"),
    ):
        with pytest.raises(InputError, match=message):
            ReproduceCell(**flags | wrong).spec()


def test_filter_teacher_asks_the_cells_teacher_and_makes_records_of_its_own(tmp_path):
    flags = {"method": "naive_td", "settings": ("B8-T8",), "learning_rate": 1e-3, "teacher": "mini-small"}
    flags |= {"rollout_settings": ("B8-T8-temperature-1",), "num_samples": 4}
    suite, cell = ReproduceCell(rollout_filter="teacher", **flags).spec()
    workshop = Workshop(suite=suite, quick=False, output=tmp_path)
    assert workshop._round(cell.student).choice.scorer == TeacherScorer(
        "mini-small", suite.device, suite.dtype
    )
    assert "--rollout-filter teacher" in cell_command(suite, cell, quick=False)
    plain = ReproduceCell(**flags).spec()[1]
    assert workshop.records(plain.student).path != workshop.records(cell.student).path


def test_only_rounds_with_a_temperature_draw_several_samples(tmp_path):
    """A round does not take the temperature of the one before it."""
    flags = {"method": "t3d-plus-verified", "settings": ("B8-T8",), "learning_rate": 1e-3, "num_samples": 8}
    rollouts = ("B4-T1", "B8-T8-temperature-1", "B4-T1")
    suite, cell = ReproduceCell(rollout_settings=rollouts, **flags).spec()
    workshop = Workshop(suite=suite, quick=False, output=tmp_path)
    found = [
        (one.params.temperature, one.choice.num_samples) for one in map(workshop._round, cell.student.rounds)
    ]
    assert found == [(0, 1), (1, 8), (0, 1)]
    words = cell_command(suite, cell, quick=False)
    assert "--rollout-settings B4-T1 B8-T8-temperature-1 B4-T1" in words and "--num-samples 8" in words
    again = ReproduceCell(rollout_settings=(rollouts[0], "B8-T8-temperature-1.0", rollouts[2]), **flags)
    assert again.spec()[1] == cell
    for greedy, more in (("B8-T8", {}), ("B8-T8-temperature-0", {"rollout_temperature": 1.0})):
        with pytest.raises(InputError, match="num_samples=8: all samples of a prompt are the same"):
            ReproduceCell(rollout_settings=(greedy,) * 3, **flags, **more).spec()


@pytest.mark.parametrize("suite", [MINI, SDAR], ids=["mini", "sdar"])
def test_all_methods_have_the_same_budget(suite):
    methods = {d.method for d in demands(suite, TABLES, 3, suite.full)} - {ORIGINAL}
    assert methods <= set(PRESETS)
    for quick in (False, True):
        budget = suite.budget(quick=quick)
        spent, records = set(), set()
        for method in methods:
            spec = StudentSpec(teacher=next(iter(suite.teachers)), method=method, seed=0, learning_rate=1e-3)
            fields = training_fields(suite, budget, spec)
            batch = fields["per_device_train_batch_size"] * fields.get("gradient_accumulation_steps", 1)
            training = resolve_student(suite, budget, spec).full["training"]
            schedule = ("learning_rate", "warmup_steps", "weight_decay", "lr_scheduler_type", "block_size")
            spent.add((fields["max_steps"], batch, *(training[name] for name in schedule)))
            resolved = resolve_records(suite, budget, spec)
            records.add((resolved.full["source"], resolved.full["count"], resolved.hash))
        assert len(spent) == 1
        assert {count for _, count, _ in records} == {budget.num_prompts}
        assert len(records) == 2, "all methods share the rollouts; SFT has as many real solutions"


def test_test_problems_are_at_least_500_per_task():
    assert MINI.full.limit >= 500
    assert MINI.quick.limit == MINI.full.limit
    assert MINI.quick.num_optimizer_steps < MINI.full.num_optimizer_steps


def test_the_grid_is_the_same_for_every_method_and_uses_no_reported_problem():
    for method in ("sft", "t3d"):
        cells = grid_cells(MINI, method)
        assert [cell.student.learning_rate for cell in cells] == list(MINI.learning_rates)
        assert {(cell.split, cell.settings, cell.student.seed) for cell in cells} == {
            ("validation", GRID_SETTINGS, 0)
        }
        assert {cell.student.teacher for cell in cells} == {"mini"}, "its choice is for both teachers"


def test_a_lambda_of_0_2_is_the_preset_itself():
    names = [demand.student(0, None).name for demand in demands(MINI, [4], 1, MINI.full)]
    assert names == ["t3d path_weight=0.05", "t3d", "t3d path_weight=0.5"]


def test_file_names_hold_no_separator():
    spec = StudentSpec(
        teacher="org/model", method="t3d", seed=1, learning_rate=1e-3, overrides=(("path_weight", 0.5),)
    )
    cell = CellSpec(student=spec, settings=("B4-T1",))
    assert cell.label == "model.t3d-path_weight-0.5.seed1.B4-T1"
    assert "lr0.001.grid" in CellSpec(student=spec, settings=("B4-T1", "B8-T1"), split="validation").label


# transformers 5.23 wants another name, which 5.20 does not know.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("method", [name for name in MAIN_METHODS if name != ORIGINAL])
@pytest.mark.parametrize("suite", [MINI, SDAR], ids=["mini", "sdar"])
def test_every_method_has_a_valid_training_configuration(suite, method, tmp_path):
    spec = StudentSpec(teacher=next(iter(suite.teachers)), method=method, seed=0, learning_rate=1e-5)
    fields = training_fields(suite, suite.full, spec)
    config = T3DConfig(output_dir=str(tmp_path), use_cpu=True, **fields)
    assert config.max_steps == suite.full.num_optimizer_steps
    assert config.bf16 == (suite is SDAR)
    check_training_fields(config)


@pytest.mark.parametrize("table", TABLES)
def test_added_rows_are_in_every_table_like_its_own(table):
    added = [added_row("naive_td path_weight=0.1"), added_row("t3d-plus")]
    own = demands(MINI, [table], 1, MINI.full)
    found = demands(MINI, [table], 1, MINI.full, added)
    new = [demand for demand in found if demand not in own]
    names = {demand.name for demand in new}
    assert len(names) == 2 and "naive_td path_weight=0.1" in names
    assert len(found) - len(own) == len(new)
    for teacher in MINI.teachers if table in (1, 2) else ["mini"]:
        places = {(d.settings, d.seeds, d.samples_per_prompt) for d in own if d.teacher == teacher}
        for name in names:
            ours = {
                (d.settings, d.seeds, d.samples_per_prompt)
                for d in new
                if (d.teacher, d.name) == (teacher, name)
            }
            assert ours == places
    assert {demand.student(0, 1e-3).num_rounds for demand in new} == {1, 3}
    assert {cell.student.num_rounds for cell in grid_cells(MINI, "t3d-plus")} == {3}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("naive", "no preset 'naive'. Fix: did you mean naive_td"),
        ("", "no preset ''"),
        ("t3d path=1", "not a setting"),
        ("t3d max_steps=1", "max_steps is the same for all rows of a table"),
    ],
)
def test_rows_that_are_no_presets_are_refused(text, says):
    with pytest.raises(InputError, match=f"rows={text!r}: .*{says}"):
        added_row(text)


def test_the_papers_regime_sees_few_prompts_in_thirty_epochs_under_noise_drawn_once():
    flags = {"method": "naive_td", "learning_rate": 1e-3, "settings": ("B8-T4",), "regime": "paper"}
    suite, cell = ReproduceCell(**flags).spec()
    budget = suite.full
    fields = training_fields(suite, budget, cell.student)
    assert fields["noise_refresh"] == "once" and budget.num_prompts == 160
    assert budget.num_optimizer_steps * budget.train_batch_size == 30 * budget.num_prompts
    assert "--regime paper" in cell_command(suite, cell, quick=False)
    more = ReproduceCell(**flags, num_prompts=320).spec()[0]
    assert (more.full.num_prompts, more.full.num_optimizer_steps) == (320, 150)
    kept = ReproduceCell(**flags, override=("noise_refresh=epoch",)).spec()
    assert training_fields(kept[0], kept[0].full, kept[1].student)["noise_refresh"] == "epoch"
