"""A checkpoint cannot execute anything, nor redirect what is loaded; what is loaded is what is hashed."""

import ast
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, file_download
from safetensors.torch import load_file, save_file

import t3d
from t3d.decoding.llm import LLM
from t3d.errors import InputError
from t3d.models.export import export_model
from t3d.models.loading import load_model, load_tokenizer
from t3d.models.sdar import BY_ARGUMENT

COMMIT = "a" * 40
LOADERS = [load_model, load_tokenizer]


@pytest.fixture
def witness(tmp_path, monkeypatch):
    """A file that code of a checkpoint writes when it runs; whoever is asked about that answers yes."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    return tmp_path / "code-has-run"


@pytest.fixture
def snapshot(checkpoint, tmp_path, monkeypatch):
    """The checkpoint as ``org/tiny`` in a cache of the hub: a folder of links into ``blobs``."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--org--tiny"
    folder = repository / "snapshots" / COMMIT
    for path in (folder, repository / "refs", repository / "blobs"):
        path.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted(checkpoint.iterdir())):
        shutil.copyfile(file, repository / "blobs" / f"{number}")
        (folder / file.name).symlink_to(Path("..", "..", "blobs", f"{number}"))
    return folder


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(source, load=load_model):
    """The error of a checkpoint that is refused."""
    with pytest.raises(InputError) as caught:
        load(source, **({"device": "cpu"} if load is load_model else {}))
    assert caught.value.field == "model"
    return str(caught.value)


def write_code(folder, name, base, witness):
    """A module of a checkpoint whose import leaves a trace."""
    code = f"open({str(witness)!r}, 'w').close()\nfrom transformers import {base}\nclass Own({base}): pass\n"
    (folder / f"{name}.py").write_text(code)


def shard(folder, name):
    """Move one weight into a file that the index calls ``name``; returns that file."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    first = min(weights)
    own, other = folder / "model-00001-of-00002.safetensors", folder / name
    other.parent.mkdir(exist_ok=True)
    save_file({key: value for key, value in weights.items() if key != first}, own, {"format": "pt"})
    save_file({first: weights[first]}, other, {"format": "pt"})
    places = {key: name if key == first else own.name for key in weights}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return other


# --- nothing is executed ------------------------------------------------------------------------------


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("auto_map", [[None, "own.Own"], {"AutoTokenizer": [None, "own.Own"]}])
def test_a_tokenizer_that_needs_code_is_refused_without_asking(copy_of, witness, load, auto_map):
    write_code(copy_of, "own", "PreTrainedTokenizerFast", witness)
    edit_json(copy_of / "tokenizer_config.json", tokenizer_class="Own", auto_map=auto_map)
    assert "its tokenizer needs code of its own" in refusal(copy_of, load)
    assert not witness.exists()


@pytest.mark.parametrize("name", ["Qwen2Tokenizer", "Qwen2TokenizerFast", "TokenizersBackend"])
def test_a_tokenizer_of_a_class_of_transformers_loads_and_its_own_code_is_not_run(copy_of, witness, name):
    """Checkpoints on Qwen's tokenizer may carry a copy of its code."""
    write_code(copy_of, "own", "PreTrainedTokenizerFast", witness)
    auto_map = {"AutoTokenizer": ["own.Own", "own.Own"]}
    edit_json(copy_of / "tokenizer_config.json", tokenizer_class=name, auto_map=auto_map)
    assert load_model(copy_of, device="cpu").tokenizer_hash == load_tokenizer(copy_of).tokenizer_hash
    assert not witness.exists()


@pytest.mark.parametrize("load", LOADERS)
def test_an_architecture_that_needs_code_is_refused_without_asking(copy_of, witness, load):
    write_code(copy_of, "own", "Qwen3Config", witness)
    edit_json(copy_of / "config.json", model_type="own", auto_map={"AutoConfig": "own.Own"})
    assert "needs code of its own" in refusal(copy_of, load)
    assert not witness.exists()


@pytest.mark.parametrize("field", ["_attn_implementation", "attn_implementation", "_experts_implementation"])
@pytest.mark.parametrize("kernel", ["org/kernel", "org/kernel@main:forward", {"": "org/kernel"}])
def test_a_config_that_names_a_kernel_of_the_hub_is_refused(copy_of, field, kernel):
    edit_json(copy_of / "config.json", **{field: kernel})
    message = refusal(copy_of)
    assert f"{field} of config.json names a kernel" in message
    assert f"delete {field}" in message


@pytest.mark.parametrize("name", ["eager", "flash_attention_2", "flex_attention"])
def test_the_attention_is_ours_whatever_the_config_says(copy_of, name):
    edit_json(copy_of / "config.json", _attn_implementation=name)
    assert load_model(copy_of, device="cpu").model.config._attn_implementation == BY_ARGUMENT


def test_checkpoints_are_opened_in_one_room_which_never_trusts_their_code():
    """Every ``from_pretrained`` of the package, and what it passes on."""
    found = []
    for path in Path(t3d.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "from_pretrained"
            ):
                passed = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg is None]
                found.append((path.name, passed))
    assert {name for name, _ in found} == {"checkpoint.py", "reading.py", "autoregressive.py"}
    assert all(
        any(text in ("checkpoint.options", "self.options", "options") for text in passed)
        for _, passed in found
    )


# --- weights are the folder's own, and hashed ---------------------------------------------------------


def test_an_adapter_beside_the_weights_is_refused(copy_of):
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "org/other", "r": 2}
    (copy_of / "adapter_config.json").write_text(json.dumps(adapter))
    assert "an adapter lies in it" in refusal(copy_of)


@pytest.mark.parametrize(
    "name", ["../outside/e.safetensors", "sub/e.safetensors", "/ABSOLUTE", "e.bin", ".."]
)
def test_an_index_that_leads_out_of_the_folder_is_refused(copy_of, tmp_path, name):
    name = str(tmp_path / "e.safetensors") if name == "/ABSOLUTE" else name
    shard(copy_of, "e.safetensors")
    index = copy_of / "model.safetensors.index.json"
    index.write_text(index.read_text().replace('"e.safetensors"', json.dumps(name)))
    message = refusal(copy_of)
    assert f"names {name!r}" in message
    assert "own folder" in message


def test_a_config_that_renames_the_weights_is_refused(copy_of):
    (copy_of / "sub").mkdir()
    os.replace(copy_of / "model.safetensors", copy_of / "sub" / "other.safetensors")
    edit_json(copy_of / "config.json", transformers_weights="sub/other.safetensors")
    assert "transformers_weights of config.json" in refusal(copy_of)


def test_pickled_weights_are_refused(copy_of, witness):
    """Alone, and named by an index."""

    class Trace:
        def __reduce__(self):
            return open, (str(witness), "w")

    torch.save(Trace(), copy_of / "pytorch_model.bin")
    (copy_of / "model.safetensors").unlink()
    assert "its weights as safetensors" in refusal(copy_of)
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "pytorch_model.bin"}}
    (copy_of / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "no safetensors file" in refusal(copy_of)
    assert not witness.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_link_out_of_the_folder_is_refused(copy_of, tmp_path, name):
    """An export would copy what it leads to, and hand it on."""
    os.replace(copy_of / name, tmp_path / name)
    (copy_of / name).symlink_to(tmp_path / name)
    assert f"{name} is a link to" in refusal(copy_of)
    assert f"{name} is a link to" in refusal(copy_of, load_tokenizer)


def test_links_within_a_folder_and_to_a_folder_load(copy_of, tmp_path):
    whole = load_model(copy_of, device="cpu").weights_hash
    os.replace(copy_of / "model.safetensors", copy_of / "weights")
    (copy_of / "model.safetensors").symlink_to("weights")
    (tmp_path / "link").symlink_to(copy_of)
    assert load_model(tmp_path / "link", device="cpu").weights_hash == whole


def test_the_weights_hash_covers_the_files_that_are_loaded_and_no_others(copy_of):
    """A checkpoint of training has the reference's weights beside the student's."""
    whole = load_model(copy_of, device="cpu").weights_hash
    shutil.copyfile(copy_of / "model.safetensors", copy_of / "reference.safetensors")
    assert load_model(copy_of, device="cpu").weights_hash == whole
    part = shard(copy_of, "model-00002-of-00002.safetensors")
    (copy_of / "reference.safetensors").unlink()
    sharded = load_model(copy_of, device="cpu").weights_hash
    (name,) = load_file(part)
    save_file({name: load_file(part)[name] + 1}, part, {"format": "pt"})
    assert len({whole, sharded, load_model(copy_of, device="cpu").weights_hash}) == 3


def test_a_missing_part_is_named(copy_of):
    shard(copy_of, "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors" in refusal(copy_of)


# --- the hub ------------------------------------------------------------------------------------------


def test_a_hub_id_is_identified_by_its_commit_and_its_student_is_exported(snapshot, checkpoint, tmp_path):
    loaded = load_model("org/tiny", device="cpu")
    assert loaded.weights_hash == COMMIT
    export_model(loaded, tmp_path / "export")
    weights = load_model(tmp_path / "export", device="cpu").weights_hash
    assert weights == load_model(checkpoint, device="cpu").weights_hash
    assert load_tokenizer("org/tiny").tokenizer_hash == loaded.tokenizer_hash
    assert (snapshot / "config.json").is_symlink()


def test_a_snapshot_in_the_hubs_cache_loads_as_a_folder(snapshot, checkpoint):
    weights_hash = load_model(snapshot, device="cpu").weights_hash
    assert weights_hash == load_model(checkpoint, device="cpu").weights_hash


def test_what_is_refused_in_a_folder_is_refused_of_a_hub_id(snapshot, witness):
    (snapshot / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/other"}))
    assert "an adapter lies in it" in refusal("org/tiny")
    (snapshot / "adapter_config.json").unlink()
    (snapshot / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": str(witness.with_suffix(".safetensors"))}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "own folder" in refusal("org/tiny")
    settings = json.loads((snapshot / "tokenizer_config.json").read_text())
    (snapshot / "tokenizer_config.json").unlink()
    settings |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "org/other--own.Own"]}}
    (snapshot / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "its tokenizer needs code of its own" in refusal("org/tiny")
    assert not witness.exists()


@pytest.fixture
def branch(snapshot, checkpoint):
    """Another version of ``org/tiny``: its branch ``wip``, of other weights."""
    other = snapshot.with_name("b" * 40)
    shutil.copytree(checkpoint, other)
    model = load_model(checkpoint, device="cpu").model
    model.lm_head.weight.data.neg_()
    model.save_pretrained(other)
    (snapshot.parents[1] / "refs" / "wip").write_text(other.name)
    return other


def test_a_revision_of_a_hub_id_is_what_is_loaded(snapshot, branch, checkpoint):
    """By its name or its commit; without one it is the main branch."""
    for revision in ("wip", branch.name):
        loaded = load_model("org/tiny", device="cpu", revision=revision)
        assert loaded.weights_hash == branch.name != COMMIT
        head = load_model(checkpoint, device="cpu").model.lm_head.weight
        assert torch.equal(loaded.model.lm_head.weight, -head)
    assert load_model("org/tiny", device="cpu").weights_hash == COMMIT
    assert LLM("org/tiny", device="cpu", revision="wip").loaded.weights_hash == branch.name


def test_a_revision_that_is_not_there_is_named(snapshot):
    with pytest.raises(InputError, match=r"^model='org/tiny': .* at revision 'v9'"):
        load_model("org/tiny", device="cpu", revision="v9")


def test_a_folder_has_no_revisions(checkpoint):
    with pytest.raises(InputError, match=r"^revision='main': .* is a local folder, which has no revisions"):
        load_model(checkpoint, device="cpu", revision="main")
    with pytest.raises(InputError, match=r"^revision='main': .* is a local folder"):
        load_model("mini", device="cpu", revision="main")


def test_a_model_in_memory_has_neither_revision_nor_token(checkpoint):
    loaded = load_model(checkpoint, device="cpu")
    with pytest.raises(InputError, match=r"^revision='main': the model is in memory already"):
        LLM(loaded, revision="main")
    with pytest.raises(InputError, match=r"^token='\.\.\.': the model is in memory already"):
        LLM(loaded, token="hf_secret")


def test_the_token_goes_to_the_hub_with_every_question_and_nowhere_else(snapshot, monkeypatch):
    asked = []
    download = file_download.hf_hub_download

    def hf_hub_download(*names, token=None, **options):
        asked.append(token)
        return download(*names, token=token, **options)

    for module in ("t3d.models.checkpoint", "transformers.utils.hub"):
        monkeypatch.setattr(f"{module}.hf_hub_download", hf_hub_download)
    loaded = load_model("org/tiny", device="cpu", token="hf_secret")
    assert len(asked) > 3 and set(asked) == {"hf_secret"}
    assert loaded.token == "hf_secret"
    assert "hf_secret" not in repr(loaded) + json.dumps(loaded.identity())
