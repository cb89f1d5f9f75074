"""The curves: a plot a term with every run's values, in a file that is an SVG."""

import base64
import xml.etree.ElementTree as xml

from mscgan.report.plots import COLOURS, POINTS, losses, speeds


def line(pairs, stage="I", **terms):
    return {"pairs": pairs, "stage": stage, "seconds": 1.0} | terms


def svg(plot):
    head, _, data = plot.source.partition(",")
    assert head == "data:image/svg+xml;base64"
    text = base64.b64decode(data).decode()
    xml.fromstring(text)
    return text


def test_each_term_has_a_plot_with_a_line_in_the_colour_of_each_run_that_has_it():
    a = [line(100, L1_1=0.5, data_wait=0.1), line(200, L1_1=0.25, data_wait=0.1)]
    b = [line(100, L1_1=0.75), line(300, "II", L1_2=0.125)]
    one, two = losses([("a", a), ("b", b)])
    assert (one.title, one.meaning, one.last) == ("L1_1", "mean |y1 - y|", ["0.25", "0.75"])
    assert (two.title, two.last) == ("L1_2", ["–", "0.125"])
    assert COLOURS[0] in svg(one) and COLOURS[1] in svg(one)
    assert COLOURS[0] not in svg(two) and COLOURS[1] in svg(two)
    assert (
        one.description
        == "L1_1 over the pairs seen. a: 0.5 at 100 pairs, 0.25 at 200; b: 0.75 at 100 pairs, 0.75 at 100."
    )


def test_a_change_of_stage_is_a_dotted_line():
    plain = [line(100, L1_1=0.5), line(200, L1_1=0.25)]
    changed = [line(100, L1_1=0.5), line(200, "II", L1_1=0.25)]
    dotted = "stroke-dasharray"
    assert dotted in svg(losses([("a", changed)])[0]) and dotted not in svg(losses([("a", plain)])[0])


def test_throughput_and_data_wait_are_plots_of_their_own_and_the_wait_is_in_percent():
    rate, wait = speeds([("a", [line(100, pairs_per_second=40.0, data_wait=0.25)])])
    assert (rate.title, rate.last, wait.last) == ("pairs per second", ["40"], ["25"])
    assert svg(rate) and svg(wait)
    assert losses([("a", [line(100, pairs_per_second=40.0, data_wait=0.25, gpu_utilisation=1.0)])]) == []


def test_a_value_that_was_not_finite_is_left_out_and_a_term_without_any_has_an_empty_plot():
    some, none = losses([("a", [line(100, x=None, y=None), line(200, x=2.0, y=None)])])
    assert some.last == ["2"] and none.last == ["–"]
    assert none.description == "y over the pairs seen. No values." and svg(none)


def test_a_long_curve_is_drawn_by_the_means_of_neighbours():
    long = [line(i, L1_1=float(i % 2)) for i in range(1, 40 * POINTS + 1)]
    short = [line(i, L1_1=float(i % 2)) for i in range(1, POINTS + 1)]
    (of_long,), (of_short,) = losses([("a", long)]), losses([("a", short)])
    assert len(of_long.source) < 1.2 * len(of_short.source)
    assert of_long.last == ["0"]


def test_names_are_no_mathematics_and_the_same_curve_gives_the_same_file():
    curves = [("_$x", [line(100, **{"$\\frac{": 1.0}), line(200, **{"$\\frac{": 2.0})])]
    assert losses(curves) == losses(curves)
    assert svg(losses(curves)[0])
