"""The comparison of scripts/fence.py: anything altered or lost is a difference, anything new is none."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "fence.py"


@pytest.fixture(scope="module")
def fence():
    spec = importlib.util.spec_from_file_location("fence", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OLD = {
    "tables": {"5/t3d": {"mean": 81.25, "ci95": [80.0, 82.5], "paper": None}},
    "hashes": {"mini.t3d": "12e7", "mini.sft": "a76b"},
    "losses": {"t3d": {"losses": [0.1, 0.2]}},
    "about": {"problem": ""},
}


def changed(**parts):
    return {**OLD, **{name: OLD[name] | values for name, values in parts.items()}}


def test_equal_numbers_with_new_keys_and_fields_are_unchanged(fence, capsys):
    entry = OLD["tables"]["5/t3d"] | {"verdicts": 3}
    new = changed(tables={"5/t3d": entry, "8/t3d": {}}, about={"problem": "other"})
    assert fence.verdict(OLD, new | {"more": {}}) == 0
    assert capsys.readouterr().out == "unchanged: tables 1, hashes 2, losses 1\n"


@pytest.mark.parametrize(
    ("new", "line"),
    [
        (changed(hashes={"mini.sft": None}), 'hashes: mini.sft: "a76b" -> null'),
        (changed(losses={"t3d": {"losses": [0.1, 0.2 + 2**-55]}}), "losses: t3d: losses[1]: 0.2 -> 0.2"),
        (changed(losses={"t3d": {"losses": [0.1]}}), "losses: t3d: losses: [0.1, 0.2] -> [0.1]"),
        (changed(tables={"5/t3d": {"mean": 81.25, "paper": None}}), "tables: 5/t3d: ci95: [80.0, 82.5] -> m"),
        (changed(tables={"5/t3d": {}}), "tables: 5/t3d: all 3 missing"),
        ({**OLD, "losses": {}}, "losses: all 1 missing"),
        ({"tables": OLD["tables"], "losses": OLD["losses"]}, "hashes: all 2 missing"),
    ],
)
def test_whatever_is_altered_or_lost_is_named(fence, capsys, new, line):
    assert fence.verdict(OLD, new) == 1
    assert line in capsys.readouterr().out


def test_an_old_answer_that_lacks_numbers_is_refused(fence):
    with pytest.raises(SystemExit, match=r"mini\.sft"):
        fence.verdict(changed(hashes={"mini.sft": None}), OLD)
