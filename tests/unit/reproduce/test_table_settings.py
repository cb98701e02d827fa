"""The named decoding settings: spelled out, and labelled as ``t3d eval`` labels them."""

from t3d.decoding.params import DecodeParams
from t3d.decoding.settings import decoding_settings
from t3d.reproduce.settings import MAX_NEW_TOKENS, SETTINGS, STATIC_SETTINGS, TABLE_SETTINGS
from t3d.reproduce.suites import MINI, load_suite


def params(**fields) -> DecodeParams:
    return DecodeParams(max_new_tokens=56, **fields)


def test_every_setting_is_what_its_name_says():
    dynamic = {"remasking": "low_confidence_dynamic", "confidence_threshold": 0.9}
    assert {
        "B4-T1": params(block_size=4, steps_per_block=4),
        "B4-T2": params(block_size=4, steps_per_block=2),
        "B4-T4": params(block_size=4, steps_per_block=1),
        "B8-T1": params(block_size=8, steps_per_block=8),
        "B8-T2": params(block_size=8, steps_per_block=4),
        "B8-T4": params(block_size=8, steps_per_block=2),
        "B8-T8": params(block_size=8, steps_per_block=1),
        "B4-dynamic": params(block_size=4, steps_per_block=4, **dynamic),
        "B4-dynamic-sampled": params(block_size=4, steps_per_block=4, confidence="sampled", **dynamic),
        "B4-T1-temperature-1": params(block_size=4, steps_per_block=4, temperature=1.0),
    } == TABLE_SETTINGS
    assert STATIC_SETTINGS == tuple(TABLE_SETTINGS)[:7] == tuple(SETTINGS)[:7]


def test_labels_are_those_of_an_evaluation():
    shared = DecodeParams(max_new_tokens=MAX_NEW_TOKENS)
    found = decoding_settings(block_sizes=(4,), tokens_per_step=(1, 2, 4), dynamic=(0.9,), shared=shared)
    found |= decoding_settings(block_sizes=(8,), tokens_per_step=(1, 2, 4, 8), shared=shared)
    assert found == SETTINGS
    assert all(found[label] == MINI.settings[label] for label in found)


def test_suites_differ_in_the_length_of_a_response_only():
    lengths = {params.max_new_tokens for params in load_suite("sdar", "data").settings.values()}
    assert lengths == {2000} and load_suite("sdar", "data").settings.keys() == MINI.settings.keys()
