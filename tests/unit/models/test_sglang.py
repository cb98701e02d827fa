"""The file that tells SGLang of a student's blocks."""

import yaml
from model_fixtures import load_copy

from t3d.models import sglang
from t3d.models.export import export_model
from t3d.models.own_settings import set_own_settings
from t3d.models.sglang import FILE

DYNAMIC = {"remasking": "low_confidence_dynamic", "confidence_threshold": 0.8}


def exported(loaded, folder, **settings):
    set_own_settings(loaded.model, {"block_size": 8, **settings})
    export_model(loaded, folder)
    return folder / FILE


def test_a_student_says_its_blocks_and_its_threshold(checkpoint, tmp_path, monkeypatch):
    """A number of tokens per step has no word there."""
    loaded = load_copy(checkpoint)
    monkeypatch.setattr(sglang, "MASK_TOKEN_ID", loaded.mask_token_id)
    static = exported(loaded, tmp_path / "static", steps_per_block=2)
    assert yaml.safe_load(static.read_text()) == {"block_size": 8}
    dynamic = exported(loaded, tmp_path / "dynamic", **DYNAMIC)
    assert yaml.safe_load(dynamic.read_text()) == {"block_size": 8, "threshold": 0.8}


def test_a_model_with_another_mask_token_has_no_such_file(checkpoint, tmp_path):
    """SGLang would decode it with SDAR's."""
    assert not exported(load_copy(checkpoint), tmp_path / "other").exists()
