"""A config.json that says what cannot be, or what its weights are not, is refused by the field's name."""

import json

import pytest

from t3d.cli.main import main
from t3d.errors import InputError
from t3d.models.config_fields import check_fields
from t3d.models.loading import load_model

LIES = [
    ("max_position_embeddings", [0, -5, True, 128.0], "not a whole number of 1 or more"),
    ("block_size", ["x", 0, -4, True, 1e9, 4.0], "not a whole number of 1 or more"),
    ("block_size", [10**9], "more tokens than max_position_embeddings=128"),
    ("head_dim", [0, -8, "x"], "not a whole number of 1 or more"),
    ("head_dim", [16], "its weights have 8"),
    ("vocab_size", [40, 375], "its weights have 374"),
    ("hidden_size", ["64"], "not a whole number"),
    ("hidden_size", [64], "its weights have 32"),
    ("intermediate_size", [64], "its weights have 48"),
    ("num_hidden_layers", [50, 1], "its weights have 2"),
    ("num_attention_heads", [0], "not a whole number"),
    ("num_attention_heads", [8], "its weights have 4"),
    ("num_key_value_heads", [3], "does not divide num_attention_heads=4"),
    ("num_key_value_heads", [4], "its weights have 2"),
    ("layer_types", ["x", [5]], "not a list of names"),
    ("layer_types", [["full_attention"]], "1 names for 2 layers"),
    ("layer_types", [["sliding_attention", "full_attention"], ["x"]], "its attention is not full"),
    ("use_sliding_window", ["yes"], "neither true nor false"),
    ("hidden_act", ["nope", 5], "no activation"),
    ("tie_word_embeddings", ["yes", 1], "neither true nor false"),
    ("architectures", [5, "SDARForCausalLM", [5]], "not a list of names"),
    ("dtype", ["float7", "int8", "nn", 5], "no floating-point type"),
    ("torch_dtype", ["float7"], "no floating-point type"),
    ("quantization_config", [{"quant_method": "nope"}, {}, 5], "names no quant_method"),
    ("rope_theta", ["x", 0, -1.0, True], "not a number above 0"),
    ("rope_parameters", [5], "no object"),
    ("rms_norm_eps", ["x", 0, -1.0], "not a number above 0"),
    ("attention_dropout", [5.0], r"not a number in [0, 1)"),
    ("return_dict", [False], "outputs have names here"),
]
OF_ROPE = [
    ("rope_parameters", {"rope_type": "nope", "rope_theta": 1e4}, "rope_type='nope'"),
    ("rope_parameters", {"rope_type": "longrope", "rope_theta": 1e4}, "rope_type='longrope'"),
    ("rope_parameters", {"rope_type": "default", "rope_theta": "x"}, "rope_theta='x'"),
    ("rope_parameters", {"rope_type": "linear", "rope_theta": 1e4}, "factor=None"),
    ("rope_parameters", {"rope_type": "linear", "rope_theta": 1e4, "factor": -1}, "factor=-1"),
    ("rope_scaling", {"type": "nope", "factor": 2.0}, "type='nope'"),
]
OF_TRANSFORMERS = [
    ("rms_norm_eps", None, "expected float"),
    ("eos_token_id", [[]], "eos_token_id"),
    ("pad_token_id", 10**6, "Padding_idx must be within"),
    ("id2label", 5, "AttributeError"),
    ("quantization_config", {"quant_method": "awq"}, "cannot be loaded (ImportError"),
]
"""What transformers refuses, in its words; the last needs a package that is not there."""
WINDOW = {"use_sliding_window": True, "sliding_window": 4}


def refusal(folder, capsys, **fields):
    """The one line with which ``t3d generate`` ends on a checkpoint with these fields."""
    edit(folder, **fields)
    capsys.readouterr()
    command = ["generate", "--model", str(folder), "--prompt", "how many?", "--max-new-tokens", "4"]
    assert main([*command, "--device", "cpu"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "Loading weights" not in line]
    assert line.startswith("error: ") and " Fix: " in line
    return line.removeprefix("error: ")


def edit(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("name", "value", "said"), [(name, value, said) for name, values, said in LIES for value in values]
)
def test_a_field_that_lies_is_named(copy_of, capsys, name, value, said):
    line = refusal(copy_of, capsys, **{name: value})
    assert line.startswith(f"{name}={value!r}: in config.json of model {str(copy_of)!r}: {said}")


@pytest.mark.parametrize(("name", "value", "said"), OF_ROPE)
def test_what_cannot_be_inside_the_rope_is_named(copy_of, capsys, name, value, said):
    assert refusal(copy_of, capsys, **{name: value}).startswith(f"{name}.{said}: in config.json of model")


@pytest.mark.parametrize(("name", "value", "said"), OF_TRANSFORMERS)
def test_what_transformers_refuses_ends_in_one_line_too(copy_of, capsys, name, value, said):
    line = refusal(copy_of, capsys, **{name: value})
    assert line.startswith("model=") and said in line


@pytest.mark.parametrize("layer_types", [None, ["full_attention"] * 2])
def test_a_window_that_our_attention_would_ignore_is_named(copy_of, capsys, layer_types):
    fields = WINDOW | {"max_window_layers": 1, "layer_types": layer_types}
    assert refusal(copy_of, capsys, **fields).startswith("use_sliding_window=True: in config.json of model")


def test_in_a_mixture_of_experts_a_window_concerns_every_layer():
    fields = {"model_type": "sdar_moe", "num_hidden_layers": 2, "max_window_layers": 28, **WINDOW}
    with pytest.raises(InputError, match=r"^use_sliding_window=True: in config"):
        check_fields("some", fields)
    check_fields("some", fields | {"use_sliding_window": False})


def test_a_config_of_sdars_sizes_in_the_names_of_transformers_4_passes():
    """The sizes are SDAR-4B-Chat's."""
    sizes = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "head_dim": 128}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151936}
    positions = {"max_position_embeddings": 32768, "rope_theta": 1000000, "rope_scaling": None}
    window = {"max_window_layers": 36, "sliding_window": None, "use_sliding_window": False}
    others = {"hidden_act": "silu", "rms_norm_eps": 1e-06, "torch_dtype": "bfloat16", "block_size": 4}
    others |= {"architectures": ["SDARForCausalLM"], "attention_dropout": 0.0, "use_cache": True}
    check_fields("some", {"model_type": "sdar"} | sizes | heads | positions | window | others)


@pytest.mark.parametrize(
    "fields",
    [
        WINDOW | {"max_window_layers": 2},  # no layer has it
        {"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": None},  # as transformers 4 writes it
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
        {"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"architectures": None, "dtype": None, "layer_types": None, "quantization_config": None},
        {"block_size": 128, "tie_word_embeddings": True, "attention_dropout": 0.1, "hidden_act": "relu"},
    ],
)
def test_a_config_that_can_be_true_loads(copy_of, fields):
    edit(copy_of, **fields)
    assert load_model(copy_of, device="cpu").model.config.num_hidden_layers == 2
