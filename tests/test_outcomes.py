"""Results of scripts in child processes: JSON in which a value may be missing."""

import pytest

from qm9lab.course import outcomes
from qm9lab.measure import Missing, is_missing
from qm9lab.processes import run_script


@pytest.fixture(autouse=True)
def may_be_missing(monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)


def test_the_first_line_is_the_result_whatever_comes_after():
    assert outcomes.value_of(run_script("print('[1, null]')\nprint('more')\n1 / 0")) == [1, None]
    assert outcomes.values_of(run_script("print('[1, 2]')"), 2) == [1, 2]


def test_a_missing_value_keeps_its_place_and_its_reason():
    script = "from qm9lab.course.outcomes import to_json\nfrom qm9lab.measure import Missing\n"
    done = run_script(script + "print(to_json([7, Missing('of a test'), {'a': 1}]))")
    number, missing, other = outcomes.value_of(done)
    assert number == 7 and is_missing(missing) and missing.reason == "of a test"
    assert other == {"a": 1}


def test_a_result_that_is_missing_as_a_whole_takes_the_place_of_each_value():
    found = outcomes.values_of(run_script('print(\'{"missing": "why"}\')'), 3)
    assert [each.reason for each in found] == ["why"] * 3


def test_a_script_out_of_time_gives_a_missing_that_says_so():
    done = run_script("import time\ntime.sleep(600)", timeout_s=0.3)
    assert "busy" in outcomes.value_of(done).reason


@pytest.mark.parametrize(("script", "words"), [("", "exit status 0"), ("1 / 0", "ZeroDivision")])
def test_a_script_without_a_result_is_an_error_and_not_missing(script, words):
    with pytest.raises(RuntimeError, match=words):
        outcomes.value_of(run_script(script))


def test_what_is_no_json_is_an_error():
    with pytest.raises(TypeError, match="expected a value for JSON, found a set"):
        outcomes.to_json([{1}])
    assert outcomes.to_json([Missing("x")]) == '[{"missing": "x"}]'
