"""What SGLang has to be told of a student: the file of its ``--dllm-algorithm-config`` (docs/serving.md).

SGLang knows SDAR by its architecture: blocks of 4 unless that file says otherwise, and one mask token,
whatever the config says. ``LowConfidence`` commits what is above ``threshold``, and at least one token.
"""

from t3d.models.loading import LoadedModel

FILE = "sglang.yaml"
MASK_TOKEN_ID = 151669
"""Of the published SDAR models; SGLang takes it for granted."""
_ARCHITECTURES = ("sdar", "sdar_moe")


def sglang_settings(loaded: LoadedModel) -> str | None:
    """The file for a model; None for one that SGLang would decode with another mask token, or not at all."""
    own = loaded.own_settings
    is_known = loaded.model.config.model_type in _ARCHITECTURES and loaded.mask_token_id == MASK_TOKEN_ID
    if not is_known or loaded.predicts != "self" or "block_size" not in own:
        return None
    lines = [
        "# python -m sglang.launch_server --model-path STUDENT --trust-remote-code \\",
        f"#     --dllm-algorithm LowConfidence --dllm-algorithm-config STUDENT/{FILE}",
        f"block_size: {own['block_size']}",
    ]
    if own.get("remasking") == "low_confidence_dynamic" and "confidence_threshold" in own:
        lines.append(f"threshold: {own['confidence_threshold']}")
    return "\n".join(lines) + "\n"
