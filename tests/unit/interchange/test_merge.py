"""Parts make the whole again, byte for byte; what does not belong to it is named."""

import json

import pytest
from command_helpers import run_failing
from format_helpers import make

from t3d.cli.main import main
from t3d.errors import InputError
from t3d.interchange.merge import files_of, merge, split
from t3d.trajectory import read_plan, read_trajectories, write_trajectories
from t3d.work.parts import Part, part_of, plan_of_part

PLAN = {"prompts": {"count": 5}, "model": {"source": "a/model", "weights": "w"}, "chunk_size": 2}
RECORDS = [make(id=str(number), task=f"t{number}") for number in range(5)]


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole.parquet"
    write_trajectories(path, RECORDS, plan=PLAN)
    return path


def write_chunks(output, numbers, plan=PLAN, records=RECORDS):
    """What shards left: chunks of two records."""
    for number in numbers:
        path = output.with_name(f"{output.name}.chunks") / f"chunk-{number:05d}.parquet"
        part = plan_of_part(plan, Part(2 * number, 5))
        write_trajectories(path, records[2 * number : 2 * number + 2], plan=part)
    return str(output)


def merge_command(output, *parts):
    return ["data", "merge", str(output), *map(str, parts)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_outputs_of_shards_make_the_file_of_one_run(whole, tmp_path, order, capsys):
    parts = [write_chunks(tmp_path / "a", [0, 2]), write_chunks(tmp_path / "b", [1]) + ".chunks"]
    output = tmp_path / "out.parquet"
    for _ in range(2):  # it may write over itself
        assert main(merge_command(output, *(parts[number] for number in order))) == 0
        assert f"5 records of 3 files in {output}\n" in capsys.readouterr().out
        assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("plan", [PLAN, None])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_file_that_was_split_is_put_together_again(tmp_path, capsys, plan, count):
    path, output = tmp_path / "r.parquet", tmp_path / "out.parquet"
    write_trajectories(path, RECORDS, plan=plan)
    for _ in range(2):
        capsys.readouterr()
        assert main(["data", "split", str(path), "--parts", str(count)]) == 0
        parts = capsys.readouterr().out.split()
    assert parts == [str(tmp_path / f"r-{i:05d}-of-{count:05d}.parquet") for i in range(count)]
    assert [record for part in parts for record in read_trajectories(part)] == RECORDS
    assert max(len(read_trajectories(part)) for part in parts) == -(-5 // count)
    assert main(merge_command(output, *reversed(parts))) == 0
    assert output.read_bytes() == path.read_bytes()


def test_parts_of_a_part_are_parts_of_the_whole(whole, tmp_path):
    first, second = split(whole, 2)
    merged = merge([*split(second, 3), first])
    assert (merged.trajectories, merged.plan) == (RECORDS, PLAN)


def test_a_part_of_several_records_for_a_prompt_is_not_split(tmp_path):
    """Its halves would count as the units of the part behind it, which could then be missing."""
    path = tmp_path / "part.parquet"
    write_trajectories(path, RECORDS[:4], plan=plan_of_part(PLAN, Part(0, 4, count=2)))
    with pytest.raises(InputError, match=r"part of 2 prompts, which have 4 records.*merge the parts first"):
        split(path, 2)


def test_parts_without_any_record_make_no_file(tmp_path, capsys):
    for number in range(2):
        part = plan_of_part(PLAN, Part(2 * number, 4, count=2))
        write_trajectories(tmp_path / f"{number}.parquet", [], plan=part)
    output = tmp_path / "out.parquet"
    parts = [tmp_path / f"{number}.parquet" for number in range(2)]
    error = run_failing(merge_command(output, *parts), capsys)
    assert "none of all parts has a record" in error and not output.exists()


def test_stats_say_that_a_file_is_a_part(whole, capsys):
    _, second = split(whole, 2)
    assert part_of(read_plan(second)) and part_of(read_plan(whole)) is None
    assert main(["data", "stats", "--trajectories", str(second)]) == 0
    assert "a part, from record 3 of 5 on" in " ".join(capsys.readouterr().out.split())


def test_equal_records_are_kept_once_and_counted(whole, tmp_path, capsys):
    """As of a chunk that two shards have made, or models that lie elsewhere."""
    moved = {**PLAN, "model": {"source": "b/model", "weights": "w"}}
    parts = [write_chunks(tmp_path / "a", [0, 1]), write_chunks(tmp_path / "b", [1, 2], moved)]
    assert main(merge_command(tmp_path / "out", *reversed(parts))) == 0
    assert "5 records of 4 files" in (told := capsys.readouterr().out) and "; 2 were there twice" in told
    assert (tmp_path / "out").read_bytes() == whole.read_bytes()


FAULTS = {
    "a chunk is missing": (
        [0, 2],
        {},
        r"2 of 5 records are in no part, first 3 to 4 \(chunk-00001\.parquet\)",
    ),
    "other weights": (
        [1],
        {"plan": {**PLAN, "model": {"source": "a/model", "weights": "v"}}},
        r"chunk-00001\.parquet': is a part of something else than .*a\.chunks.*: model\.weights was w, now v",
    ),
    "other settings": (
        [1],
        {"plan": {**PLAN, "chunk_size": 3}},
        r"chunk-00001\.parquet': is a part of something else .*chunk_size was 2, now 3",
    ),
    "another record": (
        [1, 2],
        {"records": [*RECORDS[:4], make(id="4", task="another")]},
        r"b\.chunks/chunk-00002\.parquet': record '4' is another one in .*a\.chunks/chunk-00002\.parquet",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_does_not_make_a_whole_is_named_and_nothing_is_written(tmp_path, capsys, name):
    numbers, how, message = FAULTS[name]
    parts = [write_chunks(tmp_path / "a", [0, 2]), write_chunks(tmp_path / "b", numbers, **how)]
    with pytest.raises(InputError, match=message):
        merge([file for part in parts for file in files_of(part)])
    assert "parts=" in run_failing(merge_command(tmp_path / "out.parquet", *parts), capsys)
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("kind", ["cut", "flipped"])
def test_a_torn_part_is_named(whole, tmp_path, capsys, kind):
    part = split(whole, 2)[1]
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 4
    part.write_bytes(content[:-9] if kind == "cut" else content)
    text = run_failing(merge_command(tmp_path / "out", *tmp_path.glob("whole-*")), capsys)
    assert f"parts='{part}': " in text and "Fix: give an undamaged copy" in text


def test_parts_of_two_files_that_tell_no_plan_are_told_apart(tmp_path):
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    write_trajectories(first, RECORDS)
    write_trajectories(second, [*RECORDS[:4], make(id="4", task="another")])
    with pytest.raises(InputError, match=r"b-00001.*: is a part of something else than .*part\.whole was"):
        merge([split(first, 2)[0], split(second, 2)[1]])


# --- whole files ---------------------------------------------------------------------------------


def write(path, *records, **fields):
    write_trajectories(path, records, **fields)
    return path


def test_whole_files_are_joined_in_their_order(tmp_path, capsys):
    files = [write(tmp_path / "b", *RECORDS[3:], plan=PLAN), write(tmp_path / "a", *RECORDS[:4])]
    for _ in range(2):
        assert main(merge_command(tmp_path / "out", *files)) == 0
    assert "5 records of 2 files" in (told := capsys.readouterr().out) and "; 1 were there twice" in told
    assert read_trajectories(tmp_path / "out") == [*RECORDS[3:], *RECORDS[:3]]
    assert read_plan(tmp_path / "out") is None


OTHER = {
    "tokenizer_hash": "other",
    "teacher_hash": "other",
    "mask_token_id": 9,
    "decode_params": {"temperature": 0.5},
}


@pytest.mark.parametrize("field", OTHER)
def test_whole_files_of_other_models_or_settings_are_refused_by_name(tmp_path, field):
    other = write(tmp_path / "b", make(id="x", **{field: OTHER[field]}))
    named = "decode_params.temperature" if field == "decode_params" else field
    with pytest.raises(InputError, match=rf"/b': record 'x' was made otherwise than .*/a: .*{named} was"):
        merge([write(tmp_path / "a", RECORDS[0]), other])


def test_an_id_with_two_contents_is_refused(tmp_path):
    other = write(tmp_path / "b", make(id="0", task="another"))
    with pytest.raises(InputError, match=r"/b': record '0' is another one in .*/a"):
        merge([write(tmp_path / "a", *RECORDS), other])


def test_a_part_is_not_joined_with_a_whole(whole):
    part = split(whole, 2)[0]
    for files in ([part, whole], [whole, part]):
        with pytest.raises(InputError, match=r"whole-00000-of-00002.parquet': is a part, and .*whole\.parq"):
            merge(files)


# --- the commands --------------------------------------------------------------------------------


def test_refusals_of_the_commands(whole, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for part in ("none", "empty"):
        text = run_failing(merge_command(tmp_path / "out", tmp_path / part), capsys)
        assert f"{part}': neither a file nor a folder of chunks" in text
    assert "parts=None: not given" in run_failing(merge_command(tmp_path / "out"), capsys)
    assert "is a file to read" in run_failing(merge_command(whole, whole), capsys)
    taken = tmp_path / "taken"
    taken.write_text(json.dumps("mine"))
    assert "exists, and nothing tells" in run_failing(merge_command(taken, whole), capsys)
    other = write(tmp_path / "o.parquet", RECORDS[0], plan=PLAN | {"chunk_size": 1})
    assert "exists, and nothing tells" in run_failing(merge_command(other, *split(whole, 2)), capsys)
    for count in ("0", "6"):
        text = run_failing(["data", "split", str(whole), "--parts", count], capsys)
        assert f"parts={count}: {whole} has 5 records. Fix: use 1 to 5" in text
    (tmp_path / "whole-00001-of-00003.parquet").write_text("mine")
    text = run_failing(["data", "split", str(whole), "--parts", "3"], capsys)
    assert "exists, and nothing tells" in text
    assert not (tmp_path / "whole-00000-of-00003.parquet").exists()
