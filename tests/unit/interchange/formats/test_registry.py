"""Files of every format: what is written is read, and a file of something else is named."""

import builtins
import dataclasses
import errno
import gc
import json
import sys

import pytest
from format_helpers import PROMPT, make, settings, visible_part
from strategies import TOKENIZER

from t3d.errors import InputError
from t3d.interchange.formats.assemble import DropReason
from t3d.interchange.formats.registry import FOREIGN_FORMATS, export_file, import_file, split_for_export

TWO = [make(id="a"), make(id="b")]
FILES = [
    ("authors", "x.json"),
    ("dllm_rl", "x.json"),
    ("d3llm", "x.jsonl"),
    ("d3llm", "folder"),
]


@pytest.mark.parametrize(("name", "file"), FILES)
def test_what_is_written_is_read(tmp_path, name, file):
    path = tmp_path / "deeper" / file
    export_file(path, name, TWO, TOKENIZER)
    kept, dropped = import_file(path, name, settings())
    held = TWO if name == "d3llm" else [visible_part(trajectory) for trajectory in TWO]
    assert kept == held
    assert dropped == []
    assert [entry.name for entry in path.parent.iterdir()] == [file]


@pytest.mark.parametrize("name", ["authors", "dllm_rl"])
def test_text_files_are_one_json_list(tmp_path, name):
    export_file(tmp_path / "x.json", name, TWO, TOKENIZER)
    assert [record["id"] for record in json.loads((tmp_path / "x.json").read_text())] == ["a", "b"]


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_write_that_fails_leaves_nothing(tmp_path, name, file, monkeypatch):
    def fails(*_args):
        raise RuntimeError("no record")

    monkeypatch.setitem(
        FOREIGN_FORMATS, name, dataclasses.replace(FOREIGN_FORMATS[name], record_of_trajectory=fails)
    )
    with pytest.raises(Exception, match=r"no record|generating the dataset"):
        export_file(tmp_path / file, name, TWO, TOKENIZER)
    assert list(tmp_path.iterdir()) == []


def test_an_older_data_set_is_replaced_and_another_folder_is_not(tmp_path):
    export_file(tmp_path / "set", "d3llm", TWO, TOKENIZER)
    export_file(tmp_path / "set", "d3llm", TWO[:1], TOKENIZER)
    assert len(import_file(tmp_path / "set", "d3llm", settings())[0]) == 1
    other = tmp_path / "notes"
    other.mkdir()
    (other / "keep.txt").write_text("x")
    with pytest.raises(InputError, match="not a data set that this command wrote"):
        export_file(other, "d3llm", TWO, TOKENIZER)
    assert (other / "keep.txt").read_text() == "x"


def test_a_folder_without_the_extra_names_it_and_jsonl_works(tmp_path, monkeypatch):
    export_file(tmp_path / "set", "d3llm", TWO, TOKENIZER)
    real = builtins.__import__

    def without_datasets(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "datasets")
    monkeypatch.setattr(builtins, "__import__", without_datasets)
    with pytest.raises(InputError, match=r"pip install t3d\[formats\]"):
        import_file(tmp_path / "set", "d3llm", settings())
    with pytest.raises(InputError, match=r"pip install t3d\[formats\]"):
        export_file(tmp_path / "other", "d3llm", TWO, TOKENIZER)
    export_file(tmp_path / "x.jsonl", "d3llm", TWO, TOKENIZER)
    assert import_file(tmp_path / "x.jsonl", "d3llm", settings())[0] == TWO


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("authors", "{", "cannot be read"),
        ("authors", "", "not a list of objects"),
        ("authors", "\x00", "cannot be read"),
        ("authors", '{"prompt": "x"}', "answer.*missing|full_output.*missing"),
        ("authors", "[3, null]", "not a list of objects"),
        ("authors", '{"prompt": "x"}\n{', "answer.*missing|full_output.*missing"),
        ("dllm_rl", "[]", "not a list of objects"),
        ("dllm_rl", '[{"question": "x"}]', "missing"),
        ("d3llm", "[1]", "not a list of objects"),
        ("d3llm", "\n{", "line 2"),
        ("d3llm", "\n\n", "not a list of objects"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, name, content, problem):
    (tmp_path / "x").write_text(content)
    with pytest.raises(InputError, match=problem) as caught:
        import_file(tmp_path / "x", name, settings())
    assert "x" in str(caught.value)


RECORD = {"prompt": PROMPT, "response": " so"}


@pytest.mark.parametrize(
    "other",
    ["{", "3", '{"prompt": 3, "response": "x"}', '{"response": "x"}', '{"prompt": ' + "9" * 5000 + "}"],
)
def test_a_record_that_is_not_of_the_format_is_counted_and_the_others_are_read(tmp_path, other):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join([json.dumps(RECORD), other, json.dumps(RECORD | {"id": 7}), ""]))
    kept, dropped = import_file(path, "dllm_rl", settings())
    assert [trajectory.id for trajectory in kept] == ["x/0", "7"]
    assert [(drop.id, drop.reason) for drop in dropped] == [("x/1", DropReason.OTHER_SHAPE)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("as_list", [False, True])
def test_a_mark_before_the_text_is_no_text(tmp_path, encoding, as_list):
    """UTF-16 is read where its mark stands; joined files have a mark before each part."""
    records = [RECORD | {"prompt": f"{PROMPT} é"}, RECORD]
    text = json.dumps(records, ensure_ascii=False)
    if not as_list:
        text = "\r\n\ufeff".join(json.dumps(record, ensure_ascii=False) for record in records)
    mark = "\ufeff" if encoding.startswith("utf-16-") else ""
    (tmp_path / "x.json").write_bytes((mark + text).encode(encoding))
    kept, dropped = import_file(tmp_path / "x.json", "dllm_rl", settings())
    assert ([trajectory.id for trajectory in kept], dropped) == (["x/0", "x/1"], [])


def test_the_list_of_d3llms_generator_is_read(tmp_path):
    """trajectory_data.json is one JSON list; its last records may lack the states."""
    exported = FOREIGN_FORMATS["d3llm"].record_of_trajectory(TWO[0], 0, TOKENIZER)
    theirs = {key: exported[key] for key in exported if key != "id"} | {"nfe": 3}
    without = {key: theirs[key] for key in theirs if key != "trajectory"} | {"idx": 1}
    path = tmp_path / "trajectory_data.json"
    path.write_text(json.dumps([theirs, without], indent=2))
    kept, dropped = import_file(path, "d3llm", settings())
    assert kept == [dataclasses.replace(TWO[0], id="trajectory_data/0")]
    assert [(drop.id, drop.reason) for drop in dropped] == [("trajectory_data/1", DropReason.NO_STEPS)]


@pytest.mark.parametrize("name", FOREIGN_FORMATS)
def test_missing_and_binary_files_are_named(tmp_path, name):
    with pytest.raises(InputError, match="no such file"):
        import_file(tmp_path / "none", name, settings())
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        import_file(tmp_path / "binary", name, settings())


def test_folders_that_are_no_data_set_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no dataset_info.json"):
        import_file(tmp_path / "empty", "d3llm", settings())
    export_file(tmp_path / "broken", "d3llm", TWO, TOKENIZER)
    for file in (tmp_path / "broken").glob("*.arrow"):
        file.unlink()
    with pytest.raises(InputError, match="not a readable data set"):
        import_file(tmp_path / "broken", "d3llm", settings())


def test_records_without_an_id_are_named_after_the_file_and_their_index(tmp_path):
    record = {"prompt": PROMPT, "response": " so"}
    (tmp_path / "math.json").write_text(json.dumps([record, record | {"response": ""}, record]))
    kept, dropped = import_file(tmp_path / "math.json", "dllm_rl", settings())
    assert [trajectory.id for trajectory in kept] == ["math/0", "math/2"]
    assert [(drop.id, drop.reason) for drop in dropped] == [("math/1", DropReason.EMPTY_RESPONSE)]


def test_an_id_used_twice_is_refused(tmp_path):
    record = {"id": "a", "prompt": PROMPT, "response": " so"}
    (tmp_path / "x.json").write_text(json.dumps([record, record]))
    with pytest.raises(InputError, match="used by two records"):
        import_file(tmp_path / "x.json", "dllm_rl", settings())


def test_trajectories_of_another_tokenizer_are_not_exported():
    other = make(tokenizer_hash="0" * 64)
    with pytest.raises(InputError, match="another tokenizer"):
        split_for_export([other], "dllm_rl", TOKENIZER)


def test_an_id_used_twice_is_not_exported():
    with pytest.raises(InputError, match="id='a': used by two trajectories"):
        split_for_export([*TWO, TWO[0]], "d3llm", TOKENIZER)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # datasets leaves its file open
@pytest.mark.parametrize("full", ["arrow_writer.ArrowWriter.write", "Dataset.save_to_disk", "builder"])
def test_a_full_disk_is_named_wherever_datasets_meets_it(tmp_path, monkeypatch, full):
    def fails(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "full")

    if full == "builder":  # checks the space itself
        monkeypatch.setattr("datasets.builder.has_sufficient_disk_space", lambda *_args, **_kwargs: False)
    else:
        monkeypatch.setattr(f"datasets.{full}", fails)
    with pytest.raises(InputError, match=r"set'.*No space left on device.*Fix: free space"):
        export_file(tmp_path / "set", "d3llm", TWO, TOKENIZER)
    assert list(tmp_path.iterdir()) == []
    gc.collect()  # closes that file here, where its warning is ignored


def test_what_is_no_text_is_dropped_and_the_rest_is_kept():
    broken = make(id="b", prompt_ids=(*make().prompt_ids[:-1], 0x80))
    kept, dropped = split_for_export([TWO[0], broken], "authors", TOKENIZER)
    assert kept == TWO[:1]
    assert [(drop.id, drop.reason) for drop in dropped] == [("b", DropReason.TEXT_CHANGED)]
