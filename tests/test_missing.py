"""A missing value passes through arithmetic and comparison, and never hides an error."""

import copy
import operator
import pickle

import numpy as np
import pytest

from qm9lab.measure import Missing, MissingError, first_missing, is_missing

ARITHMETIC = "add sub mul truediv floordiv mod pow and_ or_ xor lshift rshift".split()
COMPARISON = "lt le gt ge eq ne".split()


@pytest.fixture
def missing(monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    return Missing("this system has no such counter")


@pytest.mark.parametrize("name", ARITHMETIC + COMPARISON)
@pytest.mark.parametrize("other", [3, 2.5, np.int64(7), np.arange(3), {1, 2}], ids=str)
def test_arithmetic_and_comparison_give_it_back(missing, name, other):
    operation = getattr(operator, name)
    assert operation(missing, other) is missing
    assert operation(other, missing) is missing


def test_with_another_missing_value_the_first_reason_stays(missing):
    assert missing + Missing("another reason") is missing


@pytest.mark.parametrize("operation", [operator.neg, abs, round, operator.invert])
def test_so_do_operations_with_one_value(missing, operation):
    assert operation(missing) is missing


def test_sums_and_chained_comparisons_pass(missing):
    assert sum([1, missing, 2]) is missing
    assert 0 < missing < 10
    assert np.sum(missing) is missing


def test_as_a_float_it_is_nan_so_a_plot_has_a_gap(missing):
    assert np.isnan(float(missing))
    assert np.array_equal(np.array([1, missing], float), [1, np.nan], equal_nan=True)


def test_its_words(missing):
    words = "not available here, because this system has no such counter"
    assert repr(missing) == str(missing) == f"{missing:,.1f}" == f"{missing:>8}" == words


@pytest.mark.parametrize(
    "mistake",
    [
        lambda m: m.n_cached,
        lambda m: m[0],
        lambda m: len(m),
        lambda m: m + "text",
        lambda m: m < "text",
        lambda m: "text" + m,
        lambda m: m(),
        lambda m: list(m),
        lambda m: int(m),
        lambda m: range(m),
    ],
)
def test_a_wrong_name_type_or_index_raises(missing, mistake):
    with pytest.raises((AttributeError, TypeError)):
        mistake(missing)


def test_its_truth_is_true_and_it_can_be_found(missing):
    assert missing and is_missing(1, missing) and not is_missing(1, None)
    assert first_missing(1, missing) is missing and first_missing(1, None) is None


def test_copies_keep_the_reason(missing):
    for other in (copy.deepcopy(missing), pickle.loads(pickle.dumps(missing))):
        assert other.reason == missing.reason and hash(other) == hash(missing)


def test_in_strict_mode_making_one_raises(monkeypatch):
    monkeypatch.setenv("QM9LAB_STRICT", "1")
    with pytest.raises(MissingError, match="because the disk is gone"):
        Missing("the disk is gone")
    monkeypatch.setenv("QM9LAB_STRICT", "0")
    assert Missing("the disk is gone").reason == "the disk is gone"
