"""The section of a report on likely wrong labels."""

import pytest

from dpstune.report.page import Heading, Paragraph
from dpstune.report.wrong_labels import wrong_labels_section


@pytest.mark.parametrize(
    ("asked", "heading", "text"),
    [
        (0, "Likely wrong labels: not known", "here they are not known of all candidates."),
        (1, "Likely wrong labels: not known", "here there are those of 1 candidate."),
        (2, "Likely wrong labels: 0", "No example is answered alike, and against its label, by all candidates."),
    ],
)
def test_an_empty_list_says_whether_there_was_one_to_make(asked, heading, text):
    first, second = wrong_labels_section([], ["1"], [("a cat",)], asked, "candidate")
    assert isinstance(first, Heading)
    assert isinstance(second, Paragraph)
    assert first.text == heading
    assert second.text.endswith(text)
