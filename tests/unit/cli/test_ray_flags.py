"""What is refused of the flags of Ray, without a cluster."""

import json
import pickle
import sys
import threading
from dataclasses import fields

import pytest
from command_helpers import run_failing

from t3d.cli.config_file import flat_fields, resolved_config
from t3d.cli.evaluate import Eval
from t3d.cli.ray_flags import RayFlags
from t3d.cli.rollout import Rollout
from t3d.errors import InputError
from t3d.problems.prompts import SpecialTokenError
from t3d.work.lock import InUseError
from t3d.work.shards import Shard


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"num_workers": 2}, "num_workers=2: ignored without ray"),
        ({"address": "auto"}, "address='auto': ignored without ray"),
        ({"gpus_per_worker": 0.0}, "gpus_per_worker=0.0: ignored without ray"),
        ({"ray": True, "num_workers": 0}, "num_workers=0: not positive"),
        ({"ray": True, "gpus_per_worker": 2.0}, "gpus_per_worker=2.0: not a part of one GPU"),
        ({"ray": True, "address": "ray://a:1"}, "address='ray://a:1': the command would not be a part"),
        ({"tensor_parallel": 2}, "tensor_parallel=2: ignored without ray"),
        ({"ray": True, "tensor_parallel": 0}, "tensor_parallel=0: not positive"),
        ({"ray": True, "tensor_parallel": 2, "gpus_per_worker": 0.5}, "gpus_per_worker=0.5: each of the 2"),
    ],
)
def test_flags_that_cannot_be_or_have_no_use_are_refused(flags, said):
    with pytest.raises(InputError, match=said):
        RayFlags(**flags).check(None)


def test_a_drafter_is_refused_for_a_model_that_processes_share():
    RayFlags(ray=True).check_drafter("folder")
    with pytest.raises(InputError, match="drafter='folder': not for a model that 2 processes share"):
        RayFlags(ray=True, tensor_parallel=2).check_drafter("folder")


def test_a_shard_and_processes_of_torchrun_are_refused_beside_ray(monkeypatch):
    with pytest.raises(InputError, match="given beside a shard"):
        RayFlags(ray=True).check(Shard(1, 2))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="given beside a shard"):
        RayFlags(ray=True).check(None)


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "t3d.scale.ray_workers", raising=False)
    with pytest.raises(InputError, match=r"ray=True: not installed\. Fix: run pip install t3d\[ray\]"):
        RayFlags(ray=True).made(
            lambda: pytest.fail("prepared"), tmp_path, False, "cpu", "rollout", "prompts", dict
        )


@pytest.mark.parametrize(
    "error",
    [InputError("limit", 0, "too low", "use 1"), InUseError("a", None, "b", "c"), SpecialTokenError("<m>")],
)
def test_an_error_is_the_same_in_another_process(error):
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error) and str(found) == str(error) and vars(found) == vars(error)


def test_of_a_value_that_cannot_leave_its_process_the_text_does():
    error = InputError("limit", threading.Lock(), "too low", "use 1")
    found = pickle.loads(pickle.dumps(error))
    assert str(found) == str(error) and found.value == repr(error.value)


@pytest.mark.parametrize("command", [Eval, Rollout])
def test_files_that_tell_how_something_was_made_have_no_flags_of_ray(command):
    """Their bytes, and hashes of them, are those of versions without Ray."""
    ray = {item.name for item in fields(RayFlags)}
    made = command(model="m", output="o", prompts="p", workers=RayFlags(ray=True, num_workers=2))
    assert not ray & set(resolved_config(made)) and ray <= set(flat_fields(command))


@pytest.mark.parametrize("name", ["rollout", "eval"])
def test_an_id_that_two_prompts_have_is_refused_before_there_are_workers(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(RayFlags, "made", lambda *_, **__: pytest.fail("workers"))
    rows = [{"id": "a", "question": text, "answer": "1"} for text in ("how many", "how few")]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    line = [name, "--model", "mini", "--prompts", str(tmp_path / "p.jsonl"), "--output", str(tmp_path / "o")]
    assert "id='a': used twice" in run_failing([*line, "--ray"], capsys)
    assert not (tmp_path / "o").exists()
