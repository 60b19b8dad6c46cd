"""A report's page in a browser: what people read is in its own order."""

import pytest

from dpstune.report.page import Table, render_html
from dpstune.report.wrong_labels import wrong_labels_section
from dpstune.studies.wrong_labels import Suspect
from tests.browser import Browser

HEBREW = "שלום, עולם גדול"
# How far from the left edge of its cell each of some words stands, and both ends of the cell.
PLACES = """
((words) => {
  const cell = [...document.querySelectorAll("td")].find((each) => each.textContent.includes(words[0]));
  const { left, right } = cell.getBoundingClientRect();
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  const places = {};
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    for (const word of words) {
      const start = node.data.indexOf(word);
      if (start < 0) continue;
      const range = new Range();
      range.setStart(node, start);
      range.setEnd(node, start + word.length);
      places[word] = range.getBoundingClientRect().left - left;
    }
  }
  return [...words.map((word) => places[word]), right - left];
})
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    browser.screen(1280, 1000)
    yield browser
    browser.close()


@pytest.mark.parametrize(
    "blocks",
    [
        wrong_labels_section([Suspect(0, "yes", "no", 0.1, 2)], ["r1"], [(HEBREW,)], 2),
        [Table(["label", "counts"], [[HEBREW, "1"]])],
    ],
)
def test_a_sentence_written_from_right_to_left_is_shown_so(browser, tmp_path, blocks):
    file = tmp_path / "report.html"
    file.write_text(render_html("A title", blocks), encoding="utf-8")
    browser.open(file.as_uri())
    first, second, third, width = browser.run(f"{PLACES}({HEBREW.replace(',', '').split()})")
    assert width > first > second > third > 0
    latin = [Table(["label", "counts"], [["a word", "1"]])]
    file.write_text(render_html("A title", latin), encoding="utf-8")
    browser.open(file.as_uri())
    first, second, width = browser.run(f"{PLACES}(['a', 'word'])")
    assert 0 < first < second < width / 2
