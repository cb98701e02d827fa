"""``t3d convert``: wrong sources end in one line and leave nothing; an adopted model runs the whole road."""

import json
import shutil

import pytest
import torch
from adopt_helpers import edit_json, plain_tokenizer, save_source
from safetensors.torch import load_file, save_file
from transformers import T5Config

from t3d.cli.main import main
from t3d.models.loading import load_model
from t3d.tasks.mini.tokenizer import mini_tokenizer
from t3d.trajectory import read_trajectories


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A tiny random Llama with a tokenizer; copy it before you change it."""
    folder = tmp_path_factory.mktemp("source") / "llama"
    save_source(folder, "llama", plain_tokenizer())
    return folder


@pytest.fixture
def copy(llama, tmp_path):
    """A copy of it that a test may break."""
    shutil.copytree(llama, tmp_path / "source")
    return tmp_path / "source"


def refusal(source, capsys, *flags):
    """The one line with which the command ends; neither output nor anything beside it is left."""
    output = source.parent / "made" / "out"
    capsys.readouterr()
    assert main(["convert", str(source), "--output", str(output), *flags]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "Loading weights" not in line]
    assert line.startswith("error: ") and " Fix: " in line
    left = sorted(output.parent.iterdir()) if output.parent.exists() else []
    assert left == []
    return line.removeprefix("error: ")


CONFIGS = {
    "another architecture": (
        {"model_type": "gpt_neox"},
        "model_type='gpt_neox': ",
        "llama, qwen2, qwen3, qwen3_moe",
    ),
    "encoder-decoder": (T5Config().to_dict(), "source=", "is an encoder-decoder (model_type 't5')"),
    "gemma2's caps": (
        {"model_type": "gemma2", "final_logit_softcapping": 30.0},
        "final_logit_softcapping=30.0: ",
        "it caps the logits",
    ),
    "granite's scale": (
        {"model_type": "granite", "logits_scaling": 8.0},
        "logits_scaling=8.0: ",
        "it scales the logits",
    ),
    "a scale in a llama": ({"residual_multiplier": 0.2}, "residual_multiplier=0.2: ", "llama"),
    "windows": (
        {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1, "sliding_window": 4},
        "use_sliding_window=True: ",
        "its attention is not full",
    ),
    "windows by layer": (
        {"model_type": "qwen3", "layer_types": ["full_attention", "sliding_attention"]},
        "layer_types=",
        "its attention is not full",
    ),
    "rope of other requests": (
        {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}},
        "rope_parameters.rope_type='longrope': ",
        "not known here",
    ),
    "quantized": (
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        "source=",
        "its weights are quantized (gptq)",
    ),
    "code of its own": (
        {"model_type": "nobodys", "auto_map": {"AutoConfig": "configuration_x.XConfig"}},
        "source=",
        "needs code of its own, which is never executed",
    ),
    "block diffusion": (
        {"model_type": "sdar"},
        "source=",
        "is a block-diffusion model already (model_type 'sdar')",
    ),
    "a lie": ({"hidden_size": 64}, "hidden_size=64: ", "its weights have 32"),
    "heads that weights have not": ({"num_attention_heads": 2}, "num_attention_heads=2: ", "have 4"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_cannot_be_right_is_named(copy, capsys, name):
    fields, start, said = CONFIGS[name]
    edit_json(copy / "config.json", **fields)
    line = refusal(copy, capsys)
    assert line.startswith(start) and said in line


def without(*patterns):
    def spoil(folder):
        for pattern in patterns:
            for file in folder.glob(pattern):
                file.unlink()

    return spoil


def as_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def lose_a_tensor(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def only_gguf(folder):
    (folder / "config.json").unlink()
    (folder / "model-Q4.gguf").touch()


SPOILT = {
    "no tokenizer": (without("tokenizer*"), "its tokenizer cannot be loaded"),
    "no weights": (without("*.safetensors"), "has no weights as safetensors"),
    "weights as a pickle": (as_pickle, "has no weights as safetensors"),
    "a tensor is missing": (lose_a_tensor, "do not fit the network: model.layers.1.mlp.down_proj.weight"),
    "a truncated file": (truncate, "truncated or damaged"),
    "no config": (without("config.json"), "the folder has no config.json"),
    "only GGUF": (only_gguf, "give --gguf-file model-Q4.gguf"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_incomplete_is_named(copy, capsys, name):
    spoil, said = SPOILT[name]
    spoil(copy)
    assert said in refusal(copy, capsys)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--block-size", "0"], "block_size=0: not positive"),
        (["--block-size", "256"], "block_size=256: more tokens than max_position_embeddings=128"),
        (["--mask-token", "a"], "mask_token='a': an ordinary token"),
        (["--gguf-file", "nope.gguf"], "gguf_file='nope.gguf': "),
    ],
)
def test_what_cannot_be_asked_for_is_named(copy, capsys, flags, said):
    assert refusal(copy, capsys, *flags).startswith(said)


def test_a_folder_that_is_not_there_and_a_file_are_named(copy, capsys):
    assert "nowhere': no such folder" in refusal(copy.parent / "nowhere", capsys)
    (copy.parent / "x.gguf").touch()
    assert "--gguf-file x.gguf" in refusal(copy.parent / "x.gguf", capsys)


def test_an_autoregressive_model_answers_as_it_is(copy, tmp_path, capsys):
    command = ["--model", str(copy), "--device", "cpu", "--max-new-tokens", "8", "--temperature", "0"]
    assert main(["generate", "--prompt", "a", *command]) == 0
    said = capsys.readouterr()
    assert "as the checkpoint says: " in said.err and "predicts=next" in said.err
    assert main(["generate", "--prompt", "a", *command, "--predicts", "next"]) == 0
    assert capsys.readouterr().out == said.out
    assert main(["generate", "--prompt", "a", *command, "--remasking", "self_speculative"]) == 0
    assert capsys.readouterr().out == said.out
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"question": "a", "answer": "1"}\n')
    output = tmp_path / "e"
    asked = ["eval", "--prompts", str(prompts), *command, "--output", str(output)]
    assert main([*asked, "--tokens-per-step", "2"]) == 2
    assert "of an autoregressive model" in capsys.readouterr().err
    assert main([*asked, "--left-to-right", "--self-speculative"]) == 0
    assert main(["eval", "--config", str(output / "config.yaml")]) == 0
    told = [*asked[:-1], str(tmp_path / "told"), "--predicts", "next"]
    assert main([*told, "--block-size", "8"]) == 2
    assert "block_size=" in capsys.readouterr().err
    assert main(told) == 0
    entries = json.loads((output / "results.json").read_text())["results"]
    assert [entry["setting"] for entry in entries] == ["B1-left-to-right", "B1-self-speculative"]
    assert (
        main(["rollout", "--prompts", str(prompts), *command, "--output", str(tmp_path / "r.parquet")]) == 0
    )
    assert main(["rollout", "--config", str(tmp_path / "r.parquet.yaml")]) == 0


def test_the_command_says_what_was_chosen_and_the_model_answers(copy, tmp_path, capsys):
    assert main(["convert", str(copy), "--output", str(tmp_path / "out"), "--mask-token", "<|m|>"]) == 0
    said = capsys.readouterr().out
    assert "<|m|> (id 259): new, as asked for" in said and "T3DLlamaForCausalLM" in said
    command = ["generate", "--model", str(tmp_path / "out"), "--prompt", "how many?", "--device", "cpu"]
    assert main([*command, "--max-new-tokens", "8"]) == 0
    assert load_model(tmp_path / "out", device="cpu").mask_token_id == 259


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_from_a_conversion_to_a_distilled_student(tmp_path, kind):
    """Convert, fine-tune on solutions, roll out, distil, evaluate: the commands that the summary names."""
    tokenizer = mini_tokenizer()
    rows, end = len(tokenizer), tokenizer.eos_token_id
    save_source(tmp_path / "ar", kind, tokenizer, rows=rows, eos_token_id=end, pad_token_id=end)
    at = {name: str(tmp_path / name) for name in ("ar", "out", "sft", "run", "eval")}
    files = {name: str(tmp_path / f"{name}.parquet") for name in ("solutions", "rollout")}
    problems, cpu = ["--task", "chain", "--limit", "8"], ["--device", "cpu"]
    short = ["--num-optimizer-steps", "2", "--batch-size", "4", "--warmup-steps", "0", *cpu]
    assert main(["convert", at["ar"], "--output", at["out"], "--block-size", "4"]) == 0
    solutions = ["--block-size", "4", "--output", files["solutions"]]
    assert main(["data", "solutions", "--model", at["out"], *problems, *solutions]) == 0
    sft = ["--preset", "sft", "--block-size", "4", "--model", at["out"], "--trajectories", files["solutions"]]
    assert main(["train", *sft, "--output", at["sft"], *short]) == 0
    rollout = ["rollout", "--model", f"{at['sft']}/student", *problems, "--output", files["rollout"], *cpu]
    assert main([*rollout, "--max-new-tokens", "12"]) == 0
    assert {len(one.response_ids) % 4 for one in read_trajectories(files["rollout"])} <= {0, 1, 2, 3}
    t3d = ["--preset", "t3d", "--model", f"{at['sft']}/student", "--trajectories", files["rollout"]]
    assert main(["train", *t3d, "--output", at["run"], *short]) == 0
    student = ["eval", "--model", f"{at['run']}/student", "--tasks", "chain", "--limit", "4", *cpu]
    assert main([*student, "--max-new-tokens", "12", "--output", at["eval"]]) == 0
    fields = json.loads((tmp_path / "run" / "student" / "config.json").read_text())
    assert fields["model_type"] == f"t3d_{kind}"
    before, after = (load_model(name, device="cpu").model for name in (at["out"], f"{at['run']}/student"))
    changed = [
        name for name, weight in before.state_dict().items() if not weight.equal(after.state_dict()[name])
    ]
    assert changed
