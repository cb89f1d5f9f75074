"""Names as public programs write them, read with and without knowledge of the targets."""

import pytest

from mscgan.output_names import ALL, ALONE, FIVE, TRIPTYCH, evident, is_copy, readings

A, B = "0002_c1s1_000451_03", "0002_c3s1_065301_02"
FA, FB = "fashionWOMENShortsid0000513803_4full", "fashionWOMENShortsid0000513803_2side"


@pytest.mark.parametrize(
    "name, pair, panels",
    [
        (f"{A}.jpg___{B}.jpg_vis.jpg", (f"{A}.jpg", f"{B}.jpg"), (ALONE, FIVE)),  # PATN, ADGAN
        (f"{FA}_2_{FB}_vis.jpg", (FA, FB), (ALONE,)),  # GFLA, DPTN
        (f"{FA}_2_{FB}_vis.png", (FA, FB), (ALONE,)),  # NTED
        (f"{FA}_2_{FB}_all.jpg", (FA, FB), (ALL,)),  # GFLA with save_input
        (f"{A}.jpg_{B}.jpg.jpg", (f"{A}.jpg", f"{B}.jpg"), (ALONE, TRIPTYCH)),  # pose-gan
        (f"{A}.jpg_{B}.jpg.png", (f"{A}.jpg", f"{B}.jpg"), (ALONE, TRIPTYCH)),  # PATN's save_images; ours
        (f"{A}.JPEG_{B}.Png.png", (f"{A}.JPEG", f"{B}.Png"), (ALONE, TRIPTYCH)),
        ("Frau Ä.1.jpg_Frau Ä.2.jpg.png", ("Frau Ä.1.jpg", "Frau Ä.2.jpg"), (ALONE, TRIPTYCH)),
        (f"{B}.png", ("", B), (ALONE, TRIPTYCH)),
        (f"{B}.jpg.png", ("", f"{B}.jpg"), (ALONE, TRIPTYCH)),
    ],
)
def test_most_names_are_evident(name, pair, panels):
    reading = evident(name)
    assert reading is not None and (reading.source, reading.target) == pair and reading.form.panels == panels


@pytest.mark.parametrize(
    "name",
    [f"{A}_{B}_all.jpg", f"{A}_{B}_vis.jpg", "a.jpg_b.jpg_c.jpg.png", "a_2_b_2_c_vis.png"],
)
def test_a_name_that_may_be_divided_in_several_places_is_not_evident(name):
    assert evident(name) is None


@pytest.mark.parametrize("name", [f"{A}_{B}_vis.jpg", f"{A}_{B}.jpg", f"{A}_2_{B}.png", f"{A}___{B}.png"])
def test_the_right_division_is_among_the_readings(name):
    assert (A, B) in {(reading.source, reading.target) for found in readings(name) for reading in found}


def test_neither_name_of_a_pair_is_empty():
    found = [reading for form in readings("_2__a__vis.png") for reading in form]
    assert all(reading.target and (reading.source or not reading.form.join) for reading in found)


def test_inputs_beside_an_answer_are_copies():
    keys = {"a_2_b_vis", "a_2_b_ref", "a_2_b_gt", "a_2_b_all", "a_2_c_all"}
    copies = {name for name in keys if is_copy(f"{name}.jpg", keys)}
    assert copies == {"a_2_b_ref", "a_2_b_gt", "a_2_b_all"}
