"""The names under which code for transformers 4 looks for what transformers 5 saves."""

import json
from pathlib import Path


def add_older_config_names(folder: Path) -> None:
    """Also write ``rope_theta``, ``torch_dtype`` and ``num_experts`` into ``config.json``.

    Code for transformers 4 ignores ``rope_parameters``, ``dtype`` and ``num_local_experts`` and would fall
    back on its own defaults.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["torch_dtype"] = config["dtype"]
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    if "num_local_experts" in config:
        config["num_experts"] = config["num_local_experts"]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def use_older_tokenizer_names(folder: Path) -> None:
    """Write the names of transformers 4 into ``tokenizer_config.json``; transformers 5 reads them as its own.

    Transformers 4 has no class ``TokenizersBackend``, and no list of ``extra_special_tokens``. A file without
    these names stays as it is.
    """
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    renamed = dict(config)
    if renamed.get("tokenizer_class") == "TokenizersBackend":
        renamed["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(renamed.get("extra_special_tokens"), list):
        renamed["additional_special_tokens"] = renamed.pop("extra_special_tokens")
    if renamed != config:
        path.write_text(json.dumps(renamed, indent=2, sort_keys=True) + "\n", encoding="utf-8")
