"""Widgets: a control moved to either end draws anew, and the still picture is the live one."""

import textwrap

import pytest

from qm9lab.course import plots
from qm9lab.course.view import View, choice, slider
from qm9lab.lessons.lesson_03.widget import CallExplorer
from qm9lab.lessons.lesson_05 import pictures as who_sees
from qm9lab.lessons.lesson_08.widget import layout_explorer


def draw_values(**values):
    figure = plots.new_figure(3, 1.5)
    figure.text(0.02, 0.1, textwrap.fill(str(values), 50), fontsize=6)
    return figure, f"drawn: {values}"


@pytest.mark.parametrize(
    "make",
    [
        lambda draw: View(draw, record_index=slider("record", 0, 130_830)),
        lambda draw: View(
            draw, access=choice("P", who_sees.ACCESS), step=choice("step", who_sees.STEPS)
        ),
        CallExplorer,
        lambda draw: layout_explorer(draw, ["one molecule", "100 neighbours"], (19, 128, 1280)),
    ],
    ids=[
        "slider",
        "two_choices",
        "call_explorer",
        "layout_explorer",
    ],
)
def test_every_control_at_both_ends(make):
    calls = []

    def draw(**values):
        calls.append(values)
        return draw_values(**values)

    view = make(draw)
    assert len(calls) == 1
    for control in view.children[0].children:
        ends = (control.max, control.min) if hasattr(control, "max") else (*control.options[::-1],)
        for end in ends:
            before, control.value = bytes(view.picture.value), end
            assert end in calls[-1].values()
            assert bytes(view.picture.value) != before
            assert view.sentence.value == f"drawn: {calls[-1]}"


def test_a_reader_without_a_live_widget_sees_the_picture_and_the_sentence():
    view = View(draw_values, record_index=slider("record", 0, 2))
    data = view._repr_mimebundle_()
    assert data["image/png"] == bytes(view.picture.value) and data["image/png"][:4] == b"\x89PNG"
    assert data["text/plain"] == "drawn: {'record_index': 0}"
    assert "application/vnd.jupyter.widget-view+json" in data


def test_the_call_explorer_s_sentence_may_be_long_and_is_told_to_a_screen_reader():
    view = CallExplorer(draw_values, {"addr": ["<a>", "NULL"]})
    assert (
        "drawn: {'addr': 'NULL'}" in view.words.value and 'aria-live="polite"' in view.words.value
    )
    view.children[0].children[0].value = "<a>"
    assert "drawn: {'addr': '&lt;a&gt;'}" in view.words.value
    assert view.words in view.children and view.sentence not in view.children
    assert [menu.description for menu in view.children[0].children] == ["addr"]
