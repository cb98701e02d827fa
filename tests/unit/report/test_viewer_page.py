"""The page of t3d view: its tokens, that no text breaks it, its colours and its size."""

import json
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase
from viewer_helpers import TITLES, css_pairs, data_of, embedded_text, trajectory

from t3d.errors import InputError
from t3d.model_choice import BUNDLED_MODELS
from t3d.models.loading import load_tokenizer
from t3d.problems.prompts import token_ids
from t3d.report.viewer import page as page_module
from t3d.report.viewer.page import BEGINNING, SCRIPTS, embedded, page, page_data
from t3d.report.viewer.shown import Shown, of_trajectory, source_of
from t3d.report.viewer.token_texts import Tokenizers, TokenTable

FOLDER = Path(page_module.__file__).parent
STYLE = "".join((FOLDER / name).read_text(encoding="utf-8") for name in ("../colours.css", "viewer.css"))


def data_for(*shown: Shown, model: str | None = None) -> dict:
    return page_data([source_of("left", shown)], Tokenizers(model=model), title="x")


@pytest.fixture(scope="module")
def mini():
    return load_tokenizer("mini")


def spoken(mini, text: str, **fields) -> Shown:
    """A text as a record of the bundled teacher."""
    ids = token_ids(mini.tokenizer, text)
    steps = tuple(range(1, len(ids) + 1))
    named = {"teacher": "mini", "tokenizer_hash": mini.tokenizer_hash, "block_size": 1} | fields
    one = trajectory(steps=steps, response_ids=tuple(ids), visible_length=len(ids), **named)
    return of_trajectory(one)


def words(data: dict) -> str:
    record = data["sources"][0]["records"][0]
    return "".join(data["tokens"]["texts"][place] for place in record["row"])


@pytest.mark.parametrize(
    "text", ["First add 1 to 1, so 2.", "Gus has \\boxed{4}.\nthen", "  two blanks", "naïve 🧑‍🚀 مرحبا"]
)
def test_the_tokens_of_a_record_make_its_text(mini, text):
    """Characters of several tokens too, which no token alone is."""
    shown = spoken(mini, text)
    expected = mini.tokenizer.decode(shown.response_ids, skip_special_tokens=False)
    data = data_for(shown)
    assert words(data) == expected
    assert data["notes"] == []


def test_a_token_stands_in_the_table_once(mini):
    data = page_data(
        [source_of("left", [spoken(mini, "7 7 7 7"), spoken(mini, "7 7")])], Tokenizers(), title="x"
    )
    texts = data["tokens"]["texts"]
    assert len(texts) == len(set(texts)) == len(data["tokens"]["ids"])
    assert max(place for record in data["sources"][0]["records"] for place in record["row"]) < len(texts)


def test_parts_of_a_character_are_read_together_and_stand_at_the_last():
    class Bytes(PreTrainedTokenizerBase):
        """A tokenizer whose token is a byte."""

        def __init__(self):
            pass

        def decode(self, ids, skip_special_tokens):
            return bytes(ids).decode(errors="replace")

    table = TokenTable()
    row = table.row(Bytes(), list("aü🧑b".encode()))
    assert [table.texts[place] for place in row] == ["a", "", "ü", "", "", "", "🧑", "b"]


def test_a_blank_that_the_tokenizer_drops_at_the_beginning_is_there():
    class Pieces(PreTrainedTokenizerBase):
        """As SentencePiece: a word begins with a blank, which its decoder drops in front."""

        def __init__(self):
            pass

        def decode(self, ids, skip_special_tokens):
            return "".join(f" w{token}" for token in ids).removeprefix(" ")

    table = TokenTable()
    row = table.row(Pieces(), [1, 2, 1])
    assert [table.texts[place] for place in row] == [" w1", " w2", " w1"]


def test_without_the_tokenizer_ids_are_shown_and_the_page_says_so():
    data = data_for(of_trajectory(trajectory(teacher="org/name", tokenizer_hash="abc")))
    assert words(data) == "20 21 22 23 24 25 26 27 "
    assert data["sources"][0]["records"][0]["prompt"] == "5 6 7 8"
    (note,) = data["notes"]
    assert "'org/name'" in note and "--model" in note


def test_a_bundled_tokenizer_is_known_by_its_hash_whatever_the_teacher_is_called(mini):
    """A student of a run that was moved."""
    assert words(data_for(spoken(mini, "so 7", teacher="runs/gone/student-1"))) == "so 7"


def test_a_folder_with_another_tokenizer_is_not_taken(mini, tmp_path):
    shutil.copytree(
        BUNDLED_MODELS["mini"], tmp_path / "teacher", ignore=shutil.ignore_patterns("*.safetensors")
    )
    data = data_for(spoken(mini, "so 7", teacher=str(tmp_path / "teacher"), tokenizer_hash="of another"))
    assert words(data) != "so 7" and len(data["notes"]) == 1


def test_a_given_model_with_another_tokenizer_is_refused(mini):
    with pytest.raises(InputError, match="its tokenizer is not that of the records"):
        data_for(spoken(mini, "so 7", tokenizer_hash="of another"), model="mini")


def test_a_record_without_hash_or_model_takes_the_given_one(mini):
    assert words(data_for(spoken(mini, "so 7", teacher="", tokenizer_hash=""), model="mini")) == "so 7"


def test_a_record_says_where_its_first_block_begins():
    """A prompt of 6 leaves two places of a block of 4."""
    one = trajectory(prompt_ids=(1,) * 6, response_ids=(2,) * 6, steps=(1, 1, 2, 2, 2, 2), visible_length=6)
    record = data_for(of_trajectory(one))["sources"][0]["records"][0]
    assert (record["block"], record["offset"]) == (4, 2)


class Structure(HTMLParser):
    """Elements of a page, and what addresses they name."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.scripts, self.addresses = 0, []

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.addresses += [
            value for name, value in attrs if name in ("src", "href", "action", "srcset", "data")
        ]


@pytest.mark.parametrize("text", TITLES, ids=range(len(TITLES)))
def test_no_text_ends_the_data_or_becomes_an_element(text):
    one = Shown(
        id=text, task=text, question=text, answer=text, text=text, correct=True, extracted=text, reason=text
    )
    data = page_data([source_of(text, [one])], Tokenizers(), right=None, title=text)
    made = page(data)
    assert made.isascii() or text not in made
    assert "<" not in embedded_text(made)
    structure = Structure()
    structure.feed(made)
    assert structure.scripts == 2
    record = data_of(made)["sources"][0]["records"][0]
    assert (record["id"], record["text"], data_of(made)["title"]) == (text, text, text)
    made.encode()  # no lone surrogate is left


def test_a_text_that_names_a_place_to_fill_stays_as_it_is():
    made = page(
        page_data(
            [source_of("{{script}}", [Shown(id="{{data}}", text="{{style}}")])], Tokenizers(), title="x"
        )
    )
    assert made.count("function pairUp") == 1 and "{{style}}" in made


def test_numbers_that_json_does_not_have_cannot_reach_the_page():
    with pytest.raises(ValueError, match="JSON"):
        embedded(float("nan"))


def test_the_page_names_no_address_and_its_policy_allows_none():
    made = page(data_for(Shown(id="a", text="x")))
    structure = Structure()
    structure.feed(made)
    assert structure.addresses == ["data:,"]
    assert re.findall(r"https?:|//cdn|@import|url\(", made) == []
    assert made.startswith(BEGINNING)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', made)
    assert policy and policy[1].startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy[1]


def test_no_text_is_ever_written_as_html():
    scripts = "".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", scripts) == []


def test_every_script_is_in_the_page_and_files_and_functions_stay_short():
    assert {path.name for path in FOLDER.glob("*.js")} == set(SCRIPTS)
    for path in FOLDER.iterdir():
        if path.suffix in (".js", ".css", ".html"):
            text = path.read_text(encoding="utf-8")
            assert text.count("\n") < 300, path.name
            functions = re.findall(
                r"^(?:function \w+|  \w+\().*?^ {0,2}\}$", text, flags=re.MULTILINE | re.DOTALL
            )
            assert all(function.count("\n") < 60 for function in functions), path.name
            assert functions or path.suffix != ".js"


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: from 1 to 21."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


TEXTS = [("text", back) for back in ("page", "panel", "chosen", *(f"step-{n}" for n in range(8)))]
TEXTS += [("text", f"sure-{n}") for n in range(5)]
TEXTS += [("quiet", "page"), ("quiet", "panel"), ("right-text", "right-back"), ("wrong-text", "wrong-back")]
TEXTS += [("right-text", "page"), ("wrong-text", "page")]
EDGES = [("edge", "page"), ("edge", "panel"), ("accent", "page"), ("accent", "panel"), ("mask", "page")]
EDGES += [("right-text", "page"), ("wrong-text", "page")]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_of_aa(theme):
    """4.5 for text and 3 for what borders or marks; the lowest of each are pinned below."""
    colours = {name: pair[theme] for name, pair in css_pairs(STYLE).items()}
    of_texts = {pair: contrast(*(colours[name] for name in pair)) for pair in TEXTS}
    of_edges = {pair: contrast(*(colours[name] for name in pair)) for pair in EDGES}
    assert min(of_texts.values()) >= 4.5, of_texts
    assert min(of_edges.values()) >= 3, of_edges
    told = round(min(of_texts.values()), 2), round(min(of_edges.values()), 2)
    assert told == [(7.26, 3.3), (7.09, 4.27)][theme]


@pytest.mark.many_inputs
def test_five_thousand_short_trajectories_are_a_small_page():
    """48 tokens each, of a vocabulary of 1,000."""
    draw = random.Random(0)
    shown = []
    for number in range(5000):
        ids = tuple(draw.randrange(1000) for _ in range(48))
        steps = tuple(1 + place // 2 for place in range(48))
        named = {"prompt_ids": (5,) * 40, "response_ids": ids, "visible_length": 40}
        shown.append(of_trajectory(trajectory(f"chain/train/0/{number}", steps=steps, **named)))
    made = page(data_for(*shown))
    assert len(data_of(made)["sources"][0]["records"]) == 5000
    assert len(made) < 3_000_000


NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="there is no node to run the page's script")
def test_the_pure_part_of_the_script():
    """tests/unit/report/viewer_model.js, one assertion after the other."""
    assert NODE is not None
    script = Path(__file__).with_name("viewer_model.js")
    done = subprocess.run(
        [NODE, str(script), str(FOLDER / "model.js")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"failed": 0, "passed": 12}
