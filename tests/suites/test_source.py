import pytest

from suites.errors import SuiteError
from suites.source import Document, merge, read, read_value


def faults(text):
    with pytest.raises(SuiteError) as caught:
        read(text, "x.yaml")
    return caught.value.messages


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1e6", 1_000_000),
        ("100_000", 100_000),
        ("08", 8),
        ("on", "on"),
        ("off", "off"),
        ("no", "no"),
        ("true", True),
        ("~", None),
        ("2026-11-01", "2026-11-01"),
        ("${HOME}", "${HOME}"),
        ("'5'", "5"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_values_mean_what_they_look_like(text, value):
    found = read_value(text, "here")
    assert (found, type(found)) == (value, type(value))


def test_every_key_and_entry_has_its_place():
    document = read("a: 1\nb:\n  c: [x, y]\n", "x.yaml")
    assert document.where(("b", "c")) == "x.yaml:3:3"
    assert document.where(("b", "c", 1)) == "x.yaml:3:10"
    assert document.where(("b", "missing")) == "x.yaml:2:1"


def test_windows_line_ends_read_alike():
    assert read("a: 1\r\nb: [2]\r\n", "x.yaml").values == {"a": 1, "b": [2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml:1:1: the file is empty; expected a mapping"),
        ("# only a comment\n", "x.yaml:1:1: the file is empty; expected a mapping"),
        ("- a\n", "x.yaml:1:1: found a list; expected a mapping"),
        ("a:\n\tb: 1\n", "x.yaml:2:1: this is not YAML: found a tab where spaces are expected"),
        ("a: [1\n", "x.yaml:2:1: this is not YAML: expected ',' or ']'"),
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3:1: the key 'a' stands here a second time; it is already on line 1"),
        ("a: !!python/object/apply:os.system [ls]\n", "x.yaml:1:4: the tag '!!python/object/apply:os.system' is not"),
        ("a: !env HOME\n", "x.yaml:1:4: the tag '!env' is not allowed"),
        ("a: &x [*x]\n", "x.yaml:1:4: an alias refers to the value it stands in"),
        ("a: *x\n", "x.yaml:1:4: this is not YAML: found undefined alias"),
        ("<<: {a: 1}\n", "x.yaml:1:1: merge keys (<<) are not supported"),
        ("[a]: 1\n", "x.yaml:1:1: found a list as a key"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2:1: this is not YAML: but found another document"),
        ("a: \0\n", "x.yaml: this is not YAML: unacceptable character"),
        ("a: " + "[" * 1000, "x.yaml: the values are nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text, message):
    assert faults(text)[0].startswith(message)


def test_aliases_are_followed_up_to_a_bound():
    assert read("a: &x [1, 2]\nb: *x\n", "x.yaml").values == {"a": [1, 2], "b": [1, 2]}
    # each line holds ten of the line before: 10^6 values
    lines = ["k0: &k0 [0]", *(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 10)}]" for i in range(1, 7))]
    assert "expands to more than 20000 values" in faults("\n".join(lines))[0]


def test_all_faults_of_a_file_come_at_once():
    assert len(faults("a: 1\na: 2\nb: !x 1\nc: !y 1\n")) == 3


def test_merging_is_a_merge_patch():
    base = read("a: {x: 1, y: 2}\nb: [1, 2]\nc: 3\n", "base.yaml")
    merged = merge(base, read("a: {y: 5}\nb: [9]\nc: null\nd: 4\n", "own.yaml"))
    assert merged.values == {"a": {"x": 1, "y": 5}, "b": [9], "d": 4}
    assert merged.where(("a", "x")) == "base.yaml:1:5"
    assert merged.where(("a", "y")) == "own.yaml:1:5"
    assert merged.where(("b", 0)) == "own.yaml:2:5"
    assert base.values == {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}


def test_where_of_an_unplaced_document_is_empty():
    assert Document({}).where(("a",)) == ""
