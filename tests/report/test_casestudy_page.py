"""The page of a case study in a browser: opened from disk, filtered, by keyboard, in light and dark."""

import pytest

from dpstune.report.casestudy_page import page_data, render_page
from dpstune.studies.casestudy.casestudy import CaseStudy, Example, MethodVotes, Restart
from tests.browser import Browser
from tests.report.test_casestudy_report import HOSTILE, make_study

SHOWN = "document.getElementById('found').textContent"
FOCUSED = "document.activeElement"

# Every text that is seen, its contrast with what lies behind it below 4.5 (WCAG 2.2, 1.4.3).
FAINT = """
(() => {
  const brush = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  brush.canvas.width = brush.canvas.height = 1;
  const paint = (colours) => {
    for (const colour of colours) { brush.fillStyle = colour; brush.fillRect(0, 0, 1, 1); }
    return [...brush.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const light = (colour) => {
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = [];
  let seen = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const box = element.getBoundingClientRect();
    if (!own || !box.width || element.closest("script, option, noscript, [aria-disabled=true]")) continue;
    const behind = [];
    for (let each = element; each; each = each.parentElement) behind.unshift(getComputedStyle(each).backgroundColor);
    const [ink, paper] = [light(paint([...behind, getComputedStyle(element).color])), light(paint(behind))];
    seen += 1;
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (contrast < 4.5) faint.push([element.outerHTML.slice(0, 80), contrast]);
  }
  return [seen, faint];
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    study = make_study()
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(study, "Case study: a title"), encoding="utf-8")
    return path.as_uri(), study


@pytest.fixture
def page(browser, written):
    """The page, opened afresh on a desk's screen."""
    browser.screen(1280, 1000)
    browser.open(written[0])
    return browser


def choose(page, **fields):
    """Fill in fields of the form as a person's input does."""
    for name, value in fields.items():
        page.run(
            f"(() => {{ const field = document.querySelector('[name={name}]'); field.value = {value!r};"
            "field.dispatchEvent(new Event('input', { bubbles: true })); })()"
        )


def show(page, what):
    page.run(f"document.querySelector('[name=show][value={what}]').click()")


def cards(page):
    """The ids of the examples that are listed."""
    return page.run(
        "[...document.querySelectorAll('#list > li .head span:first-child b')].map((each) => each.textContent)"
    )


def focus(page, selector):
    """Press Tab until an element has the focus."""
    for _ in range(80):
        if page.run(f"{FOCUSED}.matches({selector!r})"):
            return
        page.press("Tab")
    raise AssertionError(f"Tab never reaches {selector}")


def test_it_opens_from_disk_and_asks_for_nothing(page, written):
    address, study = written
    assert page.requests == [address]
    assert page.complaints == []
    assert page.run(SHOWN) == "60 of 60 examples"
    assert page.run("document.getElementById('notes').textContent") == "a note with <b>"
    table = page.run("[...document.querySelectorAll('#proportions tbody tr')].map((row) => row.innerText)")
    for row, method in zip(table, study.methods, strict=True):
        counts = study.proportions(method)
        assert row.split("\t")[0] == method.name
        assert f"{100 * counts.easy_share:.1f}%" in row
        assert f"{100 * counts.hard_share:.1f}%" in row


def test_hostile_text_is_text(page):
    assert page.run("typeof window.hacked") == "undefined"
    assert page.run("document.querySelector('.text').textContent") == HOSTILE


def test_each_example_shows_its_restarts_votes(page, written):
    _, study = written
    chips = page.run("[...document.querySelectorAll('#list > li:nth-child(2) .chips li')].map((li) => li.textContent)")
    assert chips == [
        f"{'✓' if vote.right[1] else '✗'} {vote.predictions[1][:3]}"
        for method in study.methods
        for vote in method.votes
    ]
    assert "only the number of right restarts is known" in page.run("document.querySelector('#list > li').textContent")
    first = study.methods[0].votes[0]
    title = page.run("document.querySelector('#list > li:nth-child(2) .chips li').title")
    assert title == f"seed 42: {first.predictions[1]}, {'right' if first.right[1] else 'wrong'}"


def test_a_shortened_label_is_of_whole_characters(browser, tmp_path):
    labels = ["👩‍👩‍👧‍👦👍🏽 ดี้มาก", "👩‍👩‍👧‍👦👍🏽 ดี้น้อย"]
    examples = [Example(str(place), label, ("a text",)) for place, label in enumerate(labels)]
    votes = [Restart("seed 42", [True, True], labels)]
    page = tmp_path / "report.html"
    study = CaseStudy("labels", examples, [MethodVotes("vanilla", "vanilla", 1, [1, 1], votes)], None)
    page.write_text(render_page(study, "Labels"), encoding="utf-8")
    browser.open(page.as_uri())
    chips = browser.run("[...document.querySelectorAll('.chips li')].map((li) => li.textContent)")
    assert chips == ["✓ 👩‍👩‍👧‍👦👍🏽 ดี้ม", "✓ 👩‍👩‍👧‍👦👍🏽 ดี้น้"]


def test_filters_find_what_the_study_counts(page, written):
    _, study = written
    for number, method in enumerate(study.methods):
        choose(page, method=str(number))
        changes = study.changes(method)
        for what in ("easy", "hard", "neither"):
            show(page, what)
            assert page.run(SHOWN) == f"{method.verdicts.count(what)} of 60 examples"
        for what in ("rescued", "lost"):
            disabled = page.run(f"document.querySelector('[value={what}]').disabled")
            assert disabled == (method.name == "vanilla")
            if not disabled:
                show(page, what)
                assert page.run(SHOWN) == f"{changes.count(what)} of 60 examples"
                expected = [each.id for each, change in zip(study.examples, changes, strict=True) if change == what]
                assert cards(page) == expected[:20]


def test_filters_add_up_and_are_taken_back(page, written):
    _, study = written
    choose(page, text="  HYPOTHESIS 1", phenomenon="1")
    expected = [
        each.id
        for each in study.examples
        if each.phenomenon == "number" and "hypothesis 1" in "\n".join(each.texts).lower()
    ]
    assert cards(page) == expected
    page.run("document.getElementById('clear').click()")
    assert page.run(SHOWN) == "60 of 60 examples"
    choose(page, text="no such words")
    assert page.run(SHOWN) == "0 of 60 examples"
    assert cards(page) == []


def test_a_count_in_the_tables_leads_to_its_examples(page, written):
    _, study = written
    page.run("document.querySelector('[aria-label*=\"rescued by mixout\"]').click()")
    assert page.run(SHOWN) == f"{study.changes(study.methods[1]).count('rescued')} of 60 examples"
    assert page.run("form.elements.method.selectedOptions[0].text") == "mixout p 0.3"
    page.run("document.querySelector('#phenomena button').click()")
    assert page.run(SHOWN) == "20 of 60 examples"


def test_the_hardest_come_first_when_asked(page, written):
    _, study = written
    choose(page, method="0", order="hardest")
    order = sorted(range(60), key=lambda place: study.methods[0].correct[place])
    assert cards(page) == [study.examples[place].id for place in order[:20]]


def test_an_address_keeps_the_look(page, written):
    choose(page, method="2", text="hypothesis")
    show(page, "hard")
    address, found = page.run("location.href"), page.run(SHOWN)
    page.open(written[0])
    assert page.run(SHOWN) == "60 of 60 examples"
    page.open(address)
    assert page.run(SHOWN) == found
    assert page.run("form.elements.text.value") == "hypothesis"
    page.open(f"{written[0]}#method=gone&show=none&page=99&phenomenon=")
    assert page.run(SHOWN) == "60 of 60 examples"
    assert page.complaints == []


def test_everything_is_reached_by_keyboard(page):
    focus(page, "[name=text]")
    page.type("hypothesis 2")
    assert page.run(SHOWN) == "11 of 60 examples"
    focus(page, "[name=method]")
    page.press("ArrowDown")
    assert page.run("form.elements.method.selectedOptions[0].text") == "dps-mix"
    focus(page, "[name=show]")
    page.press("ArrowRight")
    assert page.run("document.querySelector('[name=show]:checked').value") == "easy"
    focus(page, "#clear")
    page.press("Enter")
    focus(page, "#bottom [data-step='1']")
    page.press("Enter")
    assert page.run("document.querySelector('#top .place').textContent") == "page 2 of 3"
    assert page.run(f"{FOCUSED}.matches(\"#top [data-step='1']\")"), "at the top, where the next page begins"
    page.press(" ", times=3)
    assert page.run("document.querySelector('#top .place').textContent") == "page 3 of 3"


def test_the_focus_is_seen_everywhere(page):
    seen = set()
    for _ in range(60):
        page.press("Tab")
        name, outline = page.run(
            f"[{FOCUSED}.tagName + {FOCUSED}.id + ({FOCUSED}.name ?? ''),"
            f"getComputedStyle({FOCUSED}.closest('fieldset label') ?? {FOCUSED}).outlineStyle]"
        )
        if name.startswith("BODY"):
            break
        assert outline != "none", name
        seen.add(name)
    assert {"INPUTtext", "SELECTmethod", "INPUTshow", "BUTTONclear"} <= seen


def test_every_control_has_a_name_and_changes_are_announced(page):
    nodes = page.ask("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "combobox", "searchbox", "radio", "table", "navigation", "region", "search"}
    named = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node["ignored"]]
    found = [(role, name) for role, name in named if role in controls]
    assert {role for role, _ in found} >= {"button", "combobox", "searchbox", "radio", "search"}
    assert [role for role, name in found if not name and role != "table"] == []
    assert page.run("document.getElementById('found').getAttribute('aria-live')") == "polite"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_readable(page, written, scheme):
    page.screen(1280, 6000, scheme)  # so that all of it is painted
    page.open(f"{written[0]}#show=all&method=mixout+p+0.3")
    dark = page.run("getComputedStyle(document.body).backgroundColor") == "rgb(23, 23, 27)"
    assert dark == (scheme == "dark")
    seen, faint = page.run(FAINT)
    assert seen > 500
    assert faint == []


def test_a_small_screen_needs_no_sideways_scrolling(page, written):
    page.screen(360, 800)
    page.open(written[0])
    assert page.run("document.documentElement.scrollWidth") <= 360


def test_ten_thousand_examples_are_quick(browser, tmp_path):
    """From a keystroke to what is painted: 25 to 60 ms on two quiet cores, and no wait on a busy machine either."""
    study = make_study(count=10_000)
    path = tmp_path / "large.html"
    path.write_text(render_page(study, "large"), encoding="utf-8")
    browser.screen(1280, 1000)
    browser.open(path.as_uri())
    assert browser.run(SHOWN) == "10000 of 10000 examples"
    times = browser.run(
        """(async () => {
          const times = [];
          for (const text of ["h", "hy", "hyp", "hypo", "hypo", "hypothesis 1", "hypothesis 12", "", "o", "of"]) {
            form.elements.text.value = text;
            const start = performance.now();
            form.elements.text.dispatchEvent(new Event("input", { bubbles: true }));
            await new Promise((painted) => requestAnimationFrame(() => setTimeout(painted)));
            times.push(performance.now() - start);
          }
          return times;
        })()"""
    )
    assert min(times) < 1000, times


def test_a_study_of_bare_counts_is_shown_too(browser, tmp_path):
    study = make_study(count=3, methods=("mine",))
    bare = CaseStudy("counts.csv", [type(each)(each.id) for each in study.examples], study.methods, None)
    path = tmp_path / "bare.html"
    path.write_text(render_page(bare, "bare"), encoding="utf-8")
    browser.open(path.as_uri())
    assert browser.complaints == []
    assert browser.run("document.getElementById('by-phenomenon').hidden")
    assert browser.run("document.querySelectorAll('[name=show]').length") == 4
    assert page_data(bare)["baseline"] is None
