"""The pictures of the page: of the pairs that they say they are of, or a sentence on why there are none."""

import base64
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from mscgan import trained
from mscgan.data.read import read_images
from mscgan.data.shards import ShardSet
from mscgan.pictures import save_png
from mscgan.report.images import EXTREMES, LOSSLESS, SAMPLES, _uri, pictures
from mscgan.report.reading import read
from tests.report_factory import write_scores
from tests.run_factory import write_run


@pytest.fixture
def run(tmp_path):
    """Four test people in three views: 24 pairs."""
    folder = write_run(tmp_path, 4, 3)
    write_scores(folder)
    return folder


def pixels(picture) -> np.ndarray:
    head, _, data = picture.source.partition(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert head == f"data:image/{image.format.lower()};base64"
        return np.asarray(image)


def numbers(shards, picture) -> tuple[int, int]:
    """Source and target by the names in the description: "stage I, from NAME to NAME"."""
    _, source, _, target = picture.description.split(", ")[1].split(" ")
    return shards.names.index(source), shards.names.index(target)


def test_samples_are_source_pose_stages_and_target_of_pairs_spread_over_the_table(run):
    samples, _ = pictures(read([run]))
    (grid,) = samples.grids
    assert grid.columns == ["source", "target pose", "stage I", "stage II", "target"]
    assert [head for head, _ in grid.rows] == [str(row + 1) for row in range(SAMPLES)] and not samples.notes
    shards, model = ShardSet(run.parent / "shards", "test"), trained.load(run)
    for _, row in grid.rows:
        source, target = numbers(shards, row[0])
        assert [source, target] in shards.pairs.tolist()
        x, y = read_images(shards, np.array([source, target]))
        assert (pixels(row[0]) == x).all() and (pixels(row[4]) == y).all()
        made = trained.columns(model, shards, np.array([source]), np.array([target]))
        assert np.abs(pixels(row[3]).astype(int) - made["stage II"][0]).max() <= 1  # another batch, another rounding
    assert numbers(shards, grid.rows[0][1][0]) == tuple(shards.pairs[0])
    assert numbers(shards, grid.rows[-1][1][0]) == tuple(shards.pairs[-1])


def test_the_best_and_the_worst_pairs_are_those_of_the_csv(run):
    _, (section,) = pictures(read([run]))
    best, worst = section.grids
    shards = ShardSet(run.parent / "shards", "test")
    assert [head for head, _ in best.rows] == ["0.024", "0.023", "0.022"]
    assert [head for head, _ in worst.rows] == ["0.001", "0.002", "0.003"]
    assert [numbers(shards, row[0]) for _, row in worst.rows] == [tuple(pair) for pair in shards.pairs[:EXTREMES]]
    assert [numbers(shards, row[0]) for _, row in best.rows] == [tuple(pair) for pair in shards.pairs[:-4:-1]]
    source, target = shards.pairs[-1]
    assert (pixels(best.rows[0][1][4]) == read_images(shards, np.array([target]))[0]).all()


def test_runs_of_the_same_shards_stand_side_by_side(run):
    other = run.parent / "other"
    shutil.copytree(run, other)
    samples, sections = pictures(read([run, other]))
    (grid,) = samples.grids
    assert grid.columns == [
        "source", "target pose", "run: stage I", "run: stage II", "other: stage I", "other: stage II", "target",
    ]  # fmt: skip
    _, row = grid.rows[0]
    assert row[3].source == row[5].source and row[3].source != row[6].source
    assert len(sections) == 2 and sections[1].grids[0].caption == "other: the best pairs"


def test_where_the_shards_are_gone_what_training_drew_is_shown_and_said(run):
    shutil.rmtree(run.parent / "shards")
    for pairs in (100, 200):
        save_png(Image.new("RGB", (30, 40), (pairs, 0, 0)), run / "samples" / f"pairs-{pairs:09d}.png")
    samples, (section,) = pictures(read([run]))
    assert not samples.grids and (pixels(samples.saved[0])[0, 0] == (200, 0, 0)).all()
    (note,) = samples.notes
    assert note.startswith("run: no samples could be made: ") and f"{run.parent}/shards" in note
    assert note.endswith("Shown is what training drew last, pairs-000000200.png.")
    assert not section.grids and "shards" in section.notes[0]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_a_sample_that_is_no_picture_is_said_too(run, content):
    (run / "generator.safetensors").unlink()
    (run / "samples").mkdir()
    (run / "samples/pairs-000000100.png").write_bytes(content)
    samples, _ = pictures(read([run]))
    assert not samples.saved and "pairs-000000100.png cannot be read either" in samples.notes[0]
    assert "generator.safetensors is not there yet" in samples.notes[0]


def test_without_csv_or_scores_the_section_says_how_to_get_them(run):
    (run / "evaluation-pairs.csv").unlink()
    _, (section,) = pictures(read([run]))
    assert not section.grids and "evaluation-pairs.csv is not there; python -m mscgan.evaluate" in section.notes[0]
    (run / "evaluation.json").unlink()
    samples, (section,) = pictures(read([run]))
    assert samples.grids and "has not been scored" in section.notes[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("ssim_A", "other"), "no column of numbers ssim_A"),
        (lambda text: text.replace(",0.024,", ",much,"), "no column of numbers ssim_A"),
        (lambda text: text.rsplit("stage_II", 1)[0], "23 pairs of stage_II, 23 of them with ssim_A, .* has 24"),
        (lambda text: text.replace("test_", "elsewhere_"), "names an image 'elsewhere_"),
        (lambda text: "", "0 pairs of stage_II"),
        (lambda text: "method\nstage_II\n", "no column of numbers"),
    ],
)
def test_a_csv_that_is_not_of_these_scores_is_said(run, change, said):
    path = run / "evaluation-pairs.csv"
    path.write_text(change(path.read_text()))
    samples, (section,) = pictures(read([run]))
    assert samples.grids and not section.grids
    assert re.search(said, section.notes[0]), section.notes


def test_a_pair_without_a_score_is_neither_best_nor_worst(run):
    path = run / "evaluation-pairs.csv"
    path.write_text(path.read_text().replace(",0.024,", ",,").replace(",0.001,", ",nan,"))
    _, (section,) = pictures(read([run]))
    best, worst = section.grids
    assert best.rows[0][0] == "0.023" and worst.rows[0][0] == "0.002"


def test_other_shards_than_the_scored_ones_are_not_shown_as_those(run):
    write_scores(run, shards_fingerprint="0" * 64)
    samples, (section,) = pictures(read([run]))
    assert not samples.grids and "other shards than those that were scored" in section.notes[0]


def test_small_pictures_are_exact_and_large_ones_small():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (64, 32, 3), dtype=np.uint8)
    assert _uri(small).startswith("data:image/png")
    large = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    large[:, :, :] = np.asarray(Image.fromarray(large).resize((32, 32)).resize((256, 256)))
    noisy = (large // 2 + rng.integers(0, 9, large.shape)).astype(np.uint8)
    assert _uri(noisy).startswith("data:image/jpeg") and len(_uri(noisy)) < 2 * LOSSLESS
