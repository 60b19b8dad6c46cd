import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpstune.errors import RequestError
from dpstune.recipe.yaml_text import read_mapping, read_value, write_mapping

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@settings(max_examples=40)
@given(values=st.dictionaries(st.text(), VALUES, min_size=1))
def test_what_is_written_is_read_back(values, tmp_path_factory):
    path = tmp_path_factory.mktemp("yaml") / "any.yaml"
    path.write_text(write_mapping(values), encoding="utf-8", newline="")
    assert read_mapping(path)[0] == values


def test_lines_are_those_of_the_keys(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("# comment\na: 1\nb:\n  c: {d: 2,\n      e: 3}\n")
    assert read_mapping(path)[1] == {("a",): 2, ("b",): 3, ("b", "c"): 4, ("b", "c", "d"): 4, ("b", "c", "e"): 5}


@pytest.mark.parametrize(
    ("text", "value"),
    [("2e-5", 2e-5), ("on", "on"), ("2022-01-01", "2022-01-01"), ("", None), ("'1'", "1"), ("[1, .5]", [1, 0.5])],
)
def test_values_are_read_as_yaml_1_2(text, value):
    assert read_value(text, "--set") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "r.yaml:3: a is given twice, first on line 1"),
        ("a: &x 1\n", "r.yaml:1: not valid YAML: anchors"),
        ("a: 1\nb: !!python/object/apply:os.getcwd []\n", "r.yaml:2: not valid YAML: tags"),
        ("a: 1\n  b: 2\n", "r.yaml:2: not valid YAML"),
        ("1.5: 2\n", "r.yaml:1: a key should be a word, not 1.5"),
        ("true: 2\n", 'r.yaml:1: a key should be a word, not True; in quotes it is one: "true"'),
        ("- a\n", "r.yaml: should be a mapping"),
        ("", "r.yaml: should be a mapping"),
        ("a: " + "[" * 5000, "r.yaml: not valid YAML: nested too deep"),
        ("a: " + "9" * 5000, "r.yaml:1: 99999999999999999999... is not a number"),
        ('a: "\\U00110000"\n', r"r.yaml: not valid YAML: an escape (\U...) stands for no character"),
        ('a: "\\Uffffffff"\n', r"r.yaml: not valid YAML: an escape (\U...) stands for no character"),
        ("a: \x01\n", "r.yaml: not valid YAML: special characters"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RequestError) as error:
        read_mapping(path.relative_to(tmp_path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_other_encodings_are_refused_with_the_line(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes("a: 1\nb: caf\xe9\n".encode("latin-1"))
    with pytest.raises(RequestError, match=r"r\.yaml:2: not UTF-8 text \("):
        read_mapping(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_mapping(path)[0] == {"a": 1}
