"""The page of t3d view in headless Chromium: playback, keys, addresses, filters, hostile text, themes."""

import re
from typing import Any

import pytest
from browser_helpers import DESKTOP, PHONE, Open, assert_readable, expect, keep
from viewer_helpers import TITLES, graded, trajectory

from t3d.report.viewer.page import page, page_data
from t3d.report.viewer.shown import Shown, of_row, of_trajectory, source_of
from t3d.report.viewer.token_texts import Tokenizers

pytestmark = pytest.mark.slow


@pytest.fixture
def show(open_page, tmp_path) -> Open:
    """Writes the page of some data and opens it."""

    def opened(data: dict[str, Any], address: str = "", **how: Any) -> Any:
        file = tmp_path / "view.html"
        file.write_text(page(data), encoding="utf-8")
        return open_page(file.as_uri() + address, **how)

    return opened


def data_of(*sources: tuple[str, list[Shown]], right: int | None = None) -> dict[str, Any]:
    return page_data([source_of(*each) for each in sources], Tokenizers(), right=right, title="a run")


def played(*names: str) -> list[Shown]:
    return [of_trajectory(trajectory(name)) for name in names]


def of_graded(identity: str, *, correct: bool, **fields: Any) -> Shown:
    return of_row(graded(identity, correct=correct, **fields), "a line")


def drafted(identity: str) -> Shown:
    """With probabilities and drafts, and a token behind the end."""
    told = {"response_ids": [20, 21, 22, 23, 24, 25], "step_map": [1, 2, 2, 2, 3, 3], "block_size": 4}
    told |= {
        "prompt_ids": [1, 1, 1, 1],
        "logprobs": [-0.9, -0.4, -0.1, -0.03, -0.001, -0.7],
        "visible_length": 5,
    }
    told |= {"origins": ["undrafted", "accepted", "accepted", "correction", "bonus", "drawn"]}
    return of_graded(identity, correct=True, num_forwards=3, num_denoising_steps=3, **told)


def places_masked(tab) -> list[int]:
    read = "all => all.map((one) => Number(one.dataset.place))"
    return tab.eval_on_selector_all("#left .token.masked", read)


def names(tab) -> list[str]:
    return tab.locator("#list .row .name").all_text_contents()


def test_steps_unmask_what_they_committed_by_key_slider_and_button(show):
    """Steps 1, 2 2, 3 | 4, 5 5 5."""
    tab = show(data_of(("rollout", played("a"))))
    assert places_masked(tab) == []
    tab.keyboard.press("Home")
    assert places_masked(tab) == list(range(8))
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert places_masked(tab) == [3, 4, 5, 6, 7]
    assert tab.locator("#left .token.fresh").all_text_contents() == ["21 ", "22 "]
    tab.keyboard.press("ArrowLeft")
    assert places_masked(tab) == [1, 2, 3, 4, 5, 6, 7]
    tab.locator("#slider").fill("4")
    assert places_masked(tab) == [5, 6, 7]
    tab.click("#forth")
    assert places_masked(tab) == [] and tab.inner_text("#step") == "5 / 5"
    assert tab.locator("#left .token.begins").all_text_contents() == ["20 ", "24 "]
    assert tab.locator("#left .token.behind").all_text_contents() == ["27 "]


def test_space_plays_to_the_end_and_pauses(show):
    tab = show(data_of(("rollout", played("a"))))
    tab.select_option("#speed", "30")
    tab.locator("#speed").blur()
    tab.keyboard.press(" ")
    expect(tab.locator("#play")).to_have_attribute("aria-label", "Play (space)")
    expect(tab).to_have_url(re.compile("step=5&left=0$"))
    assert tab.inner_text("#step") == "5 / 5"
    tab.select_option("#speed", "2")
    tab.locator("#speed").blur()
    tab.keyboard.press(" ")
    assert tab.get_attribute("#play", "aria-label") == "Pause (space)"
    tab.keyboard.press(" ")
    assert tab.get_attribute("#play", "aria-label") == "Play (space)"
    assert tab.inner_text("#step") != "5 / 5"


def test_an_address_leads_to_a_response_and_step_and_is_kept_up_to_date(show):
    tab = show(data_of(("rollout", played("a", "b&=#", "c"))), "#id=b%26%3D%23&step=2")
    assert (tab.inner_text("#name"), tab.inner_text("#step")) == ("b&=#", "2 / 5")
    tab.keyboard.press("j")
    expect(tab).to_have_url(re.compile("#id=c&step=5&left=0$"))
    assert tab.inner_text("#name") == "c"
    tab.keyboard.press("j")
    assert tab.inner_text("#name") == "c"
    tab.keyboard.press("k")
    tab.keyboard.press("k")
    assert tab.inner_text("#name") == "a"
    tab.evaluate("location.hash = '#id=b%26%3D%23&step=1&q=B%26'")
    expect(tab.locator("#step")).to_have_text("1 / 5")
    assert names(tab) == ["b&=#"]
    tab.goto(tab.url.partition("#")[0] + "#step=99999999999&left=7&right=x&filter=none")
    assert tab.inner_text("#step").endswith("/ 5")


@pytest.mark.parametrize("text", TITLES, ids=range(len(TITLES)))
def test_hostile_text_is_shown_as_it_is(show, text):
    one = Shown(
        id=text, task=text, question=text, answer=text, text=text, correct=False, extracted=text, reason=text
    )
    tab = show(data_of((text, [one]), (text, [one]), right=1))
    shown = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    read = "all => all.map((one) => one.textContent)"
    for where in ("#name", "#list .name", ".question", ".answer", "section h2", ".facts dd:first-of-type"):
        assert {each.replace("\ud800", "\ufffd") for each in tab.eval_on_selector_all(where, read)} == {
            shown
        }, where
    assert tab.locator("script").count() == 2
    assert tab.locator("#panes *").evaluate_all(
        "all => all.every((one) => /^[A-Z]+[0-9]?$/.test(one.tagName))"
    )


def test_hostile_tokens_are_shown_as_they_are_and_play(show):
    data = data_of(("rollout", played("a")))
    texts = [*TITLES[:5], "\x00\x1b[31m", "a\nb", "&amp;"]
    data["tokens"]["texts"] = texts
    tab = show(data)
    seen = tab.locator("#left .token").all_text_contents()
    assert seen == [text.replace("\n", "↵\n") for text in texts]
    assert tab.locator("#left .tokens *").evaluate_all("all => all.every((one) => one.tagName === 'SPAN')")
    tab.keyboard.press("Home")
    tab.keyboard.press("End")
    assert places_masked(tab) == []


def test_teacher_and_student_stand_side_by_side(show):
    left = [
        of_graded("a", correct=True, num_forwards=9),
        of_graded("b", correct=True),
        of_graded("x", correct=False),
    ]
    right = [
        of_graded("b", correct=False),
        of_graded("a", correct=True, num_forwards=3),
        of_graded("y", correct=True),
    ]
    tab = show(data_of(("teacher", left), ("student", right), right=1))
    assert names(tab) == ["a", "b", "x", "y"]
    assert tab.inner_text("#left .counts") == "4 steps · 9 forwards"
    assert tab.inner_text("#right .counts") == "4 steps · 3 forwards"
    told = tab.inner_text("#totals")
    assert "3 responses, 2 of 3 right (66.7 %)" in told and "2 in both, 2 on one side only" in told
    assert "14 forwards against 8 forwards (1.75 times)" in told
    found = {}
    for choice in ("right", "wrong", "changed", "unmatched", "all"):
        tab.select_option("#filter", choice)
        found[choice] = "".join(names(tab))
    assert found == {"right": "aby", "wrong": "x", "changed": "b", "unmatched": "xy", "all": "abxy"}
    tab.locator("#filter").blur()
    tab.click("#list .row:nth-child(2)")
    assert tab.inner_text("#left .badge") == "✓ right" and tab.inner_text("#right .badge") == "✗ wrong"
    tab.click("#list .row:nth-child(4)")
    assert tab.inner_text("#left .note") == "No response of this id here."
    tab.select_option("#right-source", "")
    assert not tab.is_visible("#right") and names(tab) == ["a", "b", "x"]


def test_a_side_with_fewer_steps_is_finished_earlier(show):
    few = of_trajectory(trajectory("a", steps=(1, 1, 1, 1, 2, 2, 2, 2)))
    tab = show(data_of(("teacher", played("a")), ("student", [few]), right=1), "#id=a&step=3")
    assert tab.inner_text("#left .counts").startswith("step 3 of 5")
    assert tab.inner_text("#right .counts").startswith("step 2 of 2")
    assert tab.locator("#right .masked").count() == 0 and tab.locator("#left .masked").count() == 4


def test_a_search_reads_questions_and_keys_do_not_act_in_it(show):
    shown = [
        of_graded(name, correct=True, question=f"how many {name}?") for name in ("jars", "keys", "jacks")
    ]
    tab = show(data_of(("eval", shown)))
    tab.keyboard.press("/")
    tab.keyboard.type("many j")
    expect(tab.locator("#found")).to_have_text("2 of 3")
    assert names(tab) == ["jars", "jacks"] and tab.inner_text("#name") == "jars"
    tab.fill("#search", "nowhere")
    expect(tab.locator(".nothing")).to_be_visible()
    tab.fill("#search", "")
    expect(tab.locator("#found")).to_have_text("3 of 3")
    tab.keyboard.press("Escape")
    tab.keyboard.press("j")
    assert tab.inner_text("#name") == "keys"


def test_a_token_tells_its_probability_and_draft(show):
    tab = show(data_of(("record", [drafted("a")])))
    tab.hover("#left .token:nth-child(2)")
    assert tab.inner_text("#detail") == (
        "token 2 of 6 · id 21 · step 2 · block 1 · probability 0.670 (log -0.400) · accepted draft"
    )
    assert tab.locator(".legend > span").all_text_contents() == [
        "accepted draft 2",
        "correction 1",
        "bonus 1",
        "no draft 1",
        "drawn 1",
    ]
    tab.select_option("#colour", "sureness")
    colour = "all => all.map((one) => getComputedStyle(one).backgroundColor)"
    assert len(set(tab.eval_on_selector_all("#left .tokens .token:not(.behind)", colour))) == 5


def test_five_thousand_trajectories_stay_smooth(show):
    """The list holds only what is in view, and the last response is a key away."""
    shown = [of_trajectory(trajectory(f"chain/{number}")) for number in range(5000)]
    tab = show(data_of(("rollout", shown)))
    assert tab.locator("#list .row").count() < 60
    tab.evaluate("document.getElementById('list').scrollTop = 1e9")
    expect(tab.get_by_text("chain/4999")).to_be_visible()
    assert tab.locator("#list .row").count() < 60
    turns = "() => { const from = performance.now(); for (let i = 0; i < 200; i++) turn(1);"
    milliseconds = tab.evaluate(f"{turns} return (performance.now() - from) / 200; }}")
    print(f"{milliseconds:.2f} ms a response")
    assert milliseconds < 200  # much less on an idle machine
    assert tab.inner_text("#name") == "chain/200" and "chain/200" in names(tab)


def test_a_megabyte_of_text_and_a_long_response_show_their_beginning_first(show):
    long = trajectory("b", steps=tuple(range(1, 10_001)), response_ids=(7,) * 10_000, visible_length=10_000)
    tab = show(data_of(("eval", [Shown(id="a", text="x" * 1_000_000), of_trajectory(long)])))
    assert len(tab.inner_text(".answer > span")) == 50_000
    tab.click(".more")
    assert len(tab.text_content(".answer")) == 1_000_000
    tab.keyboard.press("j")
    assert tab.locator("#left .token").count() == 3000
    tab.keyboard.press("Home")
    tab.click(".more")
    assert tab.locator("#left .token.masked").count() == 6000


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_aa_and_nothing_runs_over(show, size, scheme):
    sources = (
        ("teacher", [drafted("a"), of_graded("b", correct=False)]),
        ("student", [*played("a"), drafted("b")]),
    )
    tab = show(data_of(*sources, right=1), size=size, scheme=scheme)
    dark = tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert dark == (scheme == "dark")
    for _ in range(2):
        for name in ("a", "b"):
            tab.evaluate(f"choose({'ab'.index(name)})")
            if size == PHONE:
                tab.click("#menu")
            assert_readable(tab)
            if size == PHONE:
                tab.click("#menu")
        if size == DESKTOP:
            tab.evaluate("choose(1)")
            tab.check("#numbers")
            tab.select_option("#colour", "sureness")
            assert_readable(tab)
            tab.hover("#right .token:nth-child(2)")
            assert_readable(tab)
        keep(tab, f"{size[0]}-{scheme}")
        tab.click("#theme")  # and the other one, by its button
        scheme = "dark" if scheme == "light" else "light"
        assert tab.evaluate("document.documentElement.dataset.theme") == scheme


def test_on_a_phone_the_list_opens_over_the_response_and_buttons_are_wide_enough(show):
    tab = show(data_of(("rollout", played("a", "b", "c"))), size=PHONE)
    assert not tab.is_visible("#list")
    tab.click("#menu")
    tab.click("#list .row:nth-child(3)")
    assert tab.inner_text("#name") == "c" and not tab.is_visible("#list")
    heights = tab.eval_on_selector_all(
        "button, select", "all => all.filter((one) => one.offsetHeight).map((one) => one.offsetHeight)"
    )
    assert min(heights) >= 44
