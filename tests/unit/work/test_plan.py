"""Two plans are the same where every field is."""

import json

import pytest

from t3d.errors import InputError
from t3d.work.plan import (
    described,
    differences,
    file_sha256,
    full_plan,
    is_part,
    is_whole,
    sealed,
    take_finished,
)

PLAN = {"decode": {"temperature": 0.1, "sizes": (1, 2)}, "count": 4}


def test_differences_name_added_and_missing_fields_and_shorten_hashes():
    before, now = {"a": {"b": 1}, "hash": "0" * 64}, {"a": {"c": 2}, "hash": "1" * 64}
    assert differences(before, now) == [
        "a.b was 1, now not given",
        "a.c was not given, now 2",
        "hash was 000000000000..., now 111111111111...",
    ]
    assert differences(full_plan(PLAN), json.loads(json.dumps(full_plan(PLAN)))) == []


def test_an_error_names_four_differences_and_says_how_many_more_there_are():
    assert described(list("abcd")) == "a; b; c; d"
    assert described(list("abcdef")) == "a; b; c; d; and 2 more"


def test_long_values_that_begin_alike_are_shown_where_they_differ():
    before, now = "0" * 50 + "a" + "1" * 13, "0" * 50 + "b" + "1" * 13
    assert differences({"hash": before}, {"hash": now}) == [
        "hash was ...000000a11111..., now ...000000b11111..."
    ]


def test_a_sealed_record_that_changed_is_known():
    record = sealed({"plan": PLAN, "seconds": 0.1})
    assert is_whole(json.loads(json.dumps(record)))
    assert not is_whole(record | {"seconds": 0.2})
    assert is_whole({"plan": PLAN}), "of an earlier version"


def test_a_field_that_only_one_plan_has_is_a_difference_unless_it_was_added_later():
    older, now = {"a": {"x": 1}}, {"a": {"x": 1, "new": 2}}
    assert differences({}, {"a": 1}) == ["a was not given, now 1"]
    assert differences(older, now) == ["a.new was not given, now 2"]
    assert differences(older, now, added_later={"new"}) == []
    assert differences(now, older, added_later={"new"}) == ["a.new was 2, now not given"]
    assert differences(now, {"a": {"x": 1, "new": 3}}, added_later={"new"}) == ["a.new was 2, now 3"]


def test_an_object_that_may_grow_gains_entries_and_loses_none():
    before = {"settings": {"x": {"n": 1}}, "seed": 0}
    now = {"settings": {"x": {"n": 1}, "y": {"n": 3}}, "seed": 0}
    assert is_part(before, now, ["settings"])
    assert not is_part(before, before, ["settings"]), "the whole"
    assert not is_part(before, now, ["seed"])
    assert not is_part(before, now | {"seed": 1}, ["settings"])
    assert not is_part(before, {"settings": {"x": {"n": 2}, "y": {"n": 3}}, "seed": 0}, ["settings"])
    assert not is_part({"seed": 0}, now, ["settings"]), "of an earlier version, which did not tell"
    assert differences(now, before, may_grow=["settings"]) == ["settings.y was given, now not given"]
    assert differences(before, now | {"seed": 1}, may_grow=["settings"]) == ["seed was 0, now 1"]
    assert before == {"settings": {"x": {"n": 1}}, "seed": 0}


def test_plans_are_compared_as_json_holds_them():
    assert differences({"sizes": (1, 2)}, {"sizes": [1, 2]}) == []
    assert differences({"sizes": [1]}, {"sizes": [1, 2]}) == ["sizes was [1], now [1, 2]"]


def test_a_finished_output_is_taken_only_by_the_plan_that_made_it(tmp_path, caplog):
    take_finished(tmp_path, full_plan(PLAN), PLAN)
    assert "was finished before by the same command" in caplog.text
    with pytest.raises(InputError, match=r"finished work of another run: count was 4, now 5"):
        take_finished(tmp_path, full_plan(PLAN), PLAN | {"count": 5})
    with pytest.raises(InputError, match="nothing in it tells how it was made"):
        take_finished(tmp_path, None, PLAN)
    more = PLAN | {"decode": {**PLAN["decode"], "new": 1}}
    assert not take_finished(tmp_path, full_plan(PLAN), more, may_grow=["decode"])


def test_a_file_that_changed_has_another_hash(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_sha256(path).startswith("ba7816bf")
    path.write_bytes(b"abcd")
    assert file_sha256(path).startswith("88d4266f")
