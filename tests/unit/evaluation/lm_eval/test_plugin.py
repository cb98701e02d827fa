"""The harness's model and tasks: settings, prompts, ids and stop texts, on a tiny model."""

import dataclasses
import json
import logging
import sys
from functools import partialmethod

import pytest
from command_helpers import run_failing
from lm_eval._cli import HarnessCLI
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.evaluation.lm_eval.plugin import TASK_FOLDER, T3dLM, main, request_ids
from t3d.evaluation.lm_eval.settings import LmEvalConfig, cut, read_model_args, request_params
from t3d.models.loading import load_model
from t3d.problems.prompts import problem_ids, prompt_ids, token_ids
from t3d.tasks.benchmarks import load_benchmark

CONTEXTS = ["how many", "how many apples are", "so the answer is", "a b c", "left now?"]


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(checkpoint, device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def model(loaded):
    return T3dLM(loaded, temperature=1.0, max_new_tokens=12, seed=3)


def requests_of(contexts, *, task="stock", repeats=1, doc=None, **generation_kwargs):
    return [
        Instance(
            request_type="generate_until",
            doc=doc or {},
            arguments=(context, {"until": [], **generation_kwargs}),
            idx=0,
            metadata=(task, index, repeats),
        )
        for index, context in enumerate(contexts)
    ]


def test_model_args_are_decode_params_by_their_own_names():
    arguments = {"block_size": 8, "tokens_per_step": 4, "temperature": 0, "seed": -1.0, "batch_size": "16"}
    config = read_model_args(arguments | {"remasking": "low_confidence_dynamic", "confidence_threshold": 0.8})
    dynamic = {"remasking": "low_confidence_dynamic", "confidence_threshold": 0.8}
    expected = DecodeParams(block_size=8, steps_per_block=2, temperature=0.0, seed=-1, **dynamic)
    assert config == LmEvalConfig(decode=expected, batch_size=16)
    drafts = {"remasking": "self_speculative", "draft_groups": "all", "max_draft_tokens": 3}
    assert read_model_args(drafts).decode == DecodeParams(**drafts)
    assert read_model_args({}) == LmEvalConfig()
    assert read_model_args({"batch_size": "auto:4", "max_batch_size": 32}).batch_size == 32


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"blocksize": 4}, "blocksize"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"block_size": "four"}, "block_size"),
        ({"block_size": True}, "block_size"),
        ({"temperature": "hot"}, "temperature"),
        ({"remasking": "best"}, "remasking"),
        ({"top_p": 2}, "top_p"),
        ({"dtype": 16}, "dtype"),
        ({"prompt_style": "nice"}, "prompt_style"),
        ({"prompt_style": None}, "prompt_style"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "many"}, "batch_size"),
        ({"draft_groups": "all"}, "draft_groups"),
        ({"remasking": "left_to_right", "max_draft_tokens": 2}, "max_draft_tokens"),
        ({"remasking": "left_to_right", "confidence": "sampled"}, "confidence"),
        ({"tokens_per_step": 3}, "tokens_per_step"),
        ({"tokens_per_step": 2, "steps_per_block": 2}, "tokens_per_step"),
        ({"confidence_threshold": 0.9}, "confidence_threshold"),
    ],
)
def test_bad_model_args_are_refused_by_name(arguments, field):
    with pytest.raises(InputError) as caught:
        read_model_args(arguments)
    assert caught.value.field == field


def test_generation_kwargs_win_over_model_args_and_the_rest_stays():
    own = DecodeParams(temperature=0.7, top_p=0.9, max_new_tokens=100)
    assert request_params(own, {"until": "\n"}) == (own, ["\n"])
    greedy, stops = request_params(own, {"do_sample": False, "temperature": 0.3, "max_gen_toks": 7})
    assert greedy == DecodeParams(temperature=0.0, top_p=0.9, max_new_tokens=7)
    assert stops == []
    sampled, _ = request_params(own, {"do_sample": True, "temperature": 1, "top_k": 5})
    assert sampled == DecodeParams(temperature=1.0, top_k=5, top_p=0.9, max_new_tokens=100)
    assert request_params(own, {"do_sample": True, "num_beams": 1})[0] == own


@pytest.mark.parametrize(
    ("generation_kwargs", "field"),
    [
        ({"num_beams": 4}, "num_beams"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"do_sample": True, "temperature": 0.0}, "do_sample"),
        ({"do_sample": "yes"}, "do_sample"),
        ({"max_gen_toks": 0}, "max_new_tokens"),
        ({"max_gen_toks": 8, "max_tokens": 9}, "gen_kwargs"),
        ({"until": [7]}, "until"),
    ],
)
def test_generation_kwargs_that_cannot_be_honoured_are_refused_by_name(generation_kwargs, field):
    with pytest.raises(InputError) as caught:
        request_params(DecodeParams(), generation_kwargs)
    assert caught.value.field == field


def test_text_is_cut_before_the_first_stop_and_an_empty_stop_ends_nothing():
    assert cut("one. two\nthree", ["\n", "."]) == "one"
    assert cut("one", []) == cut("one", ["two"]) == "one"
    assert request_params(DecodeParams(), {"until": ["", "x"]})[1] == ["x"]
    assert request_params(DecodeParams(), {"until": None})[1] == request_params(DecodeParams(), {})[1] == []


def test_answers_are_those_of_the_library_whatever_the_order_of_the_requests(model, loaded):
    requests = requests_of(CONTEXTS) + requests_of(CONTEXTS[:2], task="other")
    answers = model.generate_until(requests)
    ids = [f"stock/{index}/0" for index in range(len(CONTEXTS))]
    expected = LLM(loaded).generate(CONTEXTS, model.config.decode, ids=ids, progress=False)
    assert answers[: len(CONTEXTS)] == [completion.text for completion in expected]
    assert answers[:2] != answers[len(CONTEXTS) :]  # another task's document, another noise
    assert model.generate_until(requests[::-1]) == answers[::-1]


def test_stop_texts_cut_and_an_empty_until_does_not(model):
    (whole,) = model.generate_until(requests_of(CONTEXTS[:1]))
    stop = whole[len(whole) // 2 :][:1]
    assert stop
    assert model.generate_until(requests_of(CONTEXTS[:1], until=[stop])) == [whole.partition(stop)[0]]


def test_settings_of_each_request_are_its_own(model, loaded):
    short, long = requests_of(CONTEXTS[:1], max_gen_toks=2), requests_of(CONTEXTS[1:2])
    long[0].doc_id = 1
    answers = model.generate_until(short + long)
    assert answers == model.generate_until(short) + model.generate_until(long)
    params = dataclasses.replace(model.config.decode, max_new_tokens=2)
    (two,) = LLM(loaded).generate(CONTEXTS[:1], params, ids=["stock/0/0"], progress=False)
    assert answers[0] == two.text


def test_own_documents_keep_their_id_and_draws_are_numbered():
    own = requests_of(["a"], task="t3d_chain", doc={"t3d_id": "chain/test/0/7"})
    draws = requests_of(["b"], repeats=3) * 3
    assert request_ids([*own, *draws]) == ["chain/test/0/7", "stock/0/0#0", "stock/0/0#1", "stock/0/0#2"]


def test_chat_template_gives_the_prompt_ids_of_the_library(model):
    question = "how many <apples> are left?\n"
    text = model.apply_chat_template([{"role": "user", "content": question}])
    assert token_ids(model.tokenizer, text) == prompt_ids(model.tokenizer, question)
    opened = [{"role": "user", "content": question}, {"role": "assistant", "content": "The answer"}]
    assert model.apply_chat_template(opened, add_generation_prompt=False) == text + "The answer"
    assert model.chat_template(True) == model.tokenizer.chat_template
    with pytest.raises(InputError, match="apply_chat_template"):
        model.chat_template("tools")


def test_log_likelihoods_are_refused_with_the_task(model):
    for method in (model.loglikelihood, model.loglikelihood_rolling):
        with pytest.raises(InputError, match=r"'stock'.*log-likelihoods.*generate_until"):
            method(requests_of(["a"]))


def test_prompts_that_cannot_be_decoded_are_refused_before_any_work(model):
    before = model.get_model_info()
    for contexts, field in ((["a", ""], "prompt_ids"), (["a", "how many " * 200], "max_new_tokens")):
        with pytest.raises(InputError) as caught:
            model.generate_until(requests_of(contexts))
        assert caught.value.field == field
    assert model.get_model_info() == before


def test_prompt_style_is_refused_where_the_prompts_are_of_another(loaded):
    released = T3dLM(loaded, prompt_style="released", max_new_tokens=4)
    own = requests_of(["a"], doc={"t3d_id": "gsm8k/test/0", "prompt_style": "released"})
    assert len(released.generate_until(own)) == 1
    with pytest.raises(InputError, match="'stock' are written in style 'plain'"):
        released.generate_until(requests_of(["a"]))
    released.chat_template(True)
    with pytest.raises(InputError, match="chat markup already"):
        released.generate_until(own)


def test_bare_prompts_of_a_chat_model_are_warned_about(loaded, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("lm_eval"), "propagate", True)
    T3dLM(loaded, max_new_tokens=4).generate_until(requests_of(["a"]))
    assert "add --apply_chat_template" in caplog.text
    caplog.clear()
    chat = T3dLM(loaded, max_new_tokens=4)
    chat.generate_until(requests_of([chat.apply_chat_template([{"role": "user", "content": "a"}])]))
    assert not caplog.text


def test_model_args_win_over_the_flags_that_the_harness_always_passes(checkpoint):
    flags = {"batch_size": 1, "device": "cuda:7", "max_batch_size": None}
    text = f"pretrained={checkpoint},device=cpu,batch_size=8"
    assert T3dLM.create_from_arg_string(text, flags).config == LmEvalConfig(device="cpu", batch_size=8)
    with pytest.raises(InputError, match="pretrained"):
        T3dLM.create_from_arg_obj({}, flags)


STUB = 'def f(x):\n    """The same."""\n'


def gsm8k_folder(folder):
    rows = [{"question": f"How many are {n} and 1?", "answer": f"So.\n#### {n + 1}"} for n in range(3)]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def load_task(name, **metadata):
    manager = TaskManager(include_path=str(TASK_FOLDER), include_defaults=False, metadata=metadata)
    return manager.load([name])["tasks"][name]


@pytest.mark.parametrize("style", [None, "plain", "paper", "released", "sdar"])
def test_benchmark_prompts_are_those_of_the_library(tmp_path, loaded, style):
    folder = gsm8k_folder(tmp_path)
    task = load_task("t3d_gsm8k", data=str(folder), **({} if style is None else {"prompt_style": style}))
    chat = T3dLM(loaded)
    style = style or "sdar"  # as in t3d eval
    for doc, problem in zip(
        task.test_docs(), load_benchmark("gsm8k", folder).problems("test", None, 0), strict=True
    ):
        text = task.doc_to_text(doc)
        if style != "released":
            text = chat.apply_chat_template([{"role": "user", "content": text}])
        expected = problem_ids(chat.tokenizer, problem, style=style, kind="math")
        assert token_ids(chat.tokenizer, text) == expected
        assert doc["t3d_id"] == problem.id


def test_benchmark_is_graded_by_its_own_grader(tmp_path, monkeypatch):
    monkeypatch.setenv("T3D_DATA", str(gsm8k_folder(tmp_path)))
    task = load_task("t3d_gsm8k", grader="legacy")
    docs = list(task.test_docs())
    assert task.process_results(docs[1], ["It is \\boxed{2}."]) == {"acc": 1.0}
    assert task.process_results(docs[1], ["It is \\boxed{3}."]) == {"acc": 0.0}
    assert task.aggregation().keys() == {"acc"}


@pytest.mark.parametrize(
    ("style", "rule"),
    [(None, "opencompass"), ("sdar", "opencompass"), ("released", "dllm_rl"), ("paper", "dllm_rl")],
)
def test_programs_are_looked_for_as_the_style_of_the_prompt_says(tmp_path, style, rule):
    row = {"task_id": "HumanEval/0", "prompt": STUB, "test": "def check(f):\n    assert f(3) == 3\n"}
    row |= {"entry_point": "f", "canonical_solution": "    return x\n"}
    (tmp_path / "HumanEval.jsonl").write_text(json.dumps(row))
    metadata = {"data": str(tmp_path), "unsafe_no_sandbox": True}
    task = load_task("t3d_humaneval", **metadata, **({} if style is None else {"prompt_style": style}))
    (doc,) = task.test_docs()
    assert task.process_results(doc, ["def f(x):\n    return x"]) == {"acc": float(rule == "opencompass")}
    assert task.process_results(doc, ["    return x\n```"]) == {"acc": 1.0}


def test_benchmarks_without_data_say_how_to_give_them(monkeypatch):
    monkeypatch.delenv("T3D_DATA", raising=False)
    with pytest.raises(InputError, match="T3D_DATA"):
        load_task("t3d_math500")


def test_every_benchmark_and_mini_task_has_its_file():
    manager = TaskManager(include_path=str(TASK_FOLDER), include_defaults=False)
    names = ["chain", "code", "gsm8k", "humaneval", "make", "math500", "mbpp"]
    assert manager.all_subtasks == [f"t3d_{name}" for name in names]
    assert manager.all_tags == ["t3d_benchmarks", "t3d_mini"]


def test_command_line_adds_tasks_and_the_model_s_defaults_and_nothing_else(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(HarnessCLI, "execute", lambda self, flags: seen.append(vars(flags)))
    before = list(sys.argv)
    main(["--tasks", "t3d_chain", "--include_path", "mine"])
    assert seen[-1]["include_path"] == [str(TASK_FOLDER), "mine"]
    assert (seen[-1]["model"], seen[-1]["batch_size"], seen[-1]["device"]) == ("t3d", "auto", "auto")
    file = tmp_path / "run.yaml"
    file.write_text("batch_size: 4\ninclude_path: theirs\n")
    main(["run", "--config", str(file), "--device", "cpu"])
    assert seen[-1]["include_path"] == [str(TASK_FOLDER), "theirs"]
    assert (seen[-1]["batch_size"], seen[-1]["device"]) == (4, "cpu")
    main(["run", "--model", "hf", "--tasks", "t3d_chain"])
    assert seen[-1]["device"] is None
    assert "batch_size" not in seen[-1]
    assert sys.argv == before


def test_command_without_the_harness_names_the_extra(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "t3d.evaluation.lm_eval.plugin")
    monkeypatch.setitem(sys.modules, "lm_eval._cli", None)
    assert "t3d[eval]" in run_failing(["lm-eval", "--tasks", "t3d_chain"], capsys)


def test_a_misspelt_task_is_named_with_the_nearest_one(monkeypatch):
    """Among our own: reading the harness's thousands of tasks takes it twenty seconds."""
    ours_only = partialmethod(TaskManager.__init__, include_defaults=False)
    monkeypatch.setattr(TaskManager, "__init__", ours_only)
    with pytest.raises(InputError, match=r"tasks='t3d_chian': not known.*did you mean t3d_chain"):
        main(["run", "--model_args", "pretrained=mini", "--tasks", "t3d_chian"])
