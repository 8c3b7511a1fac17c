"""Widgets: a control moved to either end draws anew, and the still picture is the live one."""

import pytest

from qm9lab import plots, widgets


def draw_values(**values):
    figure = plots.new_figure(3, 1.5)
    figure.subplots().set_title(str(values))
    return figure, f"drawn: {values}"


@pytest.mark.parametrize(
    "make",
    [
        lambda draw: widgets.record_inspector(draw, 130_831),
        lambda draw: widgets.address_space(draw, 64),
        lambda draw: widgets.shared_or_private(draw, ["made", "stored", "flushed", "closed"]),
    ],
    ids=["record_inspector", "address_space", "shared_or_private"],
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
    view = widgets.record_inspector(draw_values, 3)
    data, _ = view._repr_mimebundle_()
    assert data["image/png"] == bytes(view.picture.value) and data["image/png"][:4] == b"\x89PNG"
    assert data["text/plain"] == "drawn: {'record_index': 0}"
    assert "application/vnd.jupyter.widget-view+json" in data


def test_the_last_record_can_be_reached():
    assert widgets.record_inspector(draw_values, 130_831).children[0].children[0].max == 130_830
