"""Finds poses in photographs: `python -m mscgan.poses` (or mscgan.paf) `[--estimator paf|movenet|PATH] ...`

    --image a.jpg [b.jpg ...] [--out POSE.json] [--picture P.png]
                          the pose of each image's person, as mscgan/user_inputs.py reads it, and a picture of it. Of
                          several images --out is a folder, which gets a.json, b.json and so on
    --folder DIR --out annotations.csv
                          the field's keypoint file of all images in a folder (mscgan/poses_folder.py)
    --score SHARDS [--split test]
                          how many joints the estimator finds again on shards (mscgan/poses_score.py)

PATH is a run of the family paf, or a file of the released network's weights. Of several people in an image it is the
one with the highest score. Runs on the CUDA device where there is one.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from mscgan import files, poses_folder, poses_score
from mscgan.arguments import Parser
from mscgan.checks import check_apart, check_place, check_together
from mscgan.errors import UserError, run, say
from mscgan.estimators import Person, in_photo, open_estimator, rescaled
from mscgan.paths import a_path, path_text
from mscgan.photos import Photo, read_photo
from mscgan.pictures import draw_pose_on, grid, save_png

SHOWN = 512  # pixels of the longer side of an image in the picture


def main() -> None:
    parser = Parser(
        prog="python -m mscgan.poses", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--estimator", type=path_text, default="paf", help="paf | movenet | a run's folder | a file of weights (paf)"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", type=a_path, nargs="+", help="images of people")
    what.add_argument("--folder", type=a_path, help="a folder of images, and all below it")
    what.add_argument("--score", type=path_text, metavar="SHARDS", help="shards whose keypoints are true")
    parser.add_argument("--out", type=a_path, help="what to write: JSON, or with --folder a CSV file")
    parser.add_argument("--picture", type=a_path, help="a PNG to write: image | the pose drawn on it")
    parser.add_argument("--split", help="of the shards that are scored; test by default")
    options = parser.parse_args()
    check_together(options, {"--image": (options.image, ("picture",)), "--score": (options.score, ("split",))})
    if options.score:
        if options.out:
            raise UserError("--score prints and writes no file; leave --out away")
        return poses_score.score(options.score, options.split or "test", options.estimator)
    if options.folder:
        if not options.out:
            raise UserError("no --out; give the CSV file to write, for example --out annotations.csv")
        return poses_folder.annotate(options.folder, options.out, options.estimator)
    _images(options.image, options.out, options.picture, options.estimator)


def _images(images: list[Path], out: Path | None, picture: Path | None, estimator: str) -> None:
    # What can be refused is refused before the network is built.
    if not (out or picture):
        raise UserError("nothing to write; give --out POSE.json, --picture P.png or both")
    if picture and picture.suffix.lower() != ".png":
        raise UserError(f"--picture {picture}: pictures are written as PNG; give a name that ends with .png")
    outs = _outs(images, out)
    for path, option in [*((path, "--out") for path in outs.values()), *([(picture, "--picture")] if picture else [])]:
        check_place(path, option)
        check_apart(path, option, images)
    photos = [read_photo(path) for path in images]
    estimate = open_estimator(estimator)
    found: list[tuple[Path, Photo, Person]] = []
    for path, photo in zip(images, photos, strict=True):
        if people := in_photo(estimate, photo):
            found.append((path, photo, people[0]))
        if len(people) != 1:
            say(f"{path}: {len(people)} people; the one with the highest score is taken" if people else _nobody(path))
    if not found:
        raise UserError("nobody was found, so nothing is written; give images that show a whole person")
    try:
        if out:
            if len(images) > 1:
                out.mkdir(parents=True, exist_ok=True)
            for path, photo, person in found:
                files.write(outs[path], _json(photo, person))
                print(outs[path])
        if picture:
            save_png(_picture([(photo, person) for _, photo, person in found]), picture)
            print(picture)
    except OSError as error:
        raise UserError(f"cannot write {error.filename} ({error.strerror}); give another place") from error


def _nobody(path: Path) -> str:
    return f"{path}: nobody was found; nothing is written for it"


def _outs(images: list[Path], out: Path | None) -> dict[Path, Path]:
    """The JSON file of each image."""
    if out is None:
        return {}
    if len(images) == 1:
        return {images[0]: out}
    outs = {path: out / f"{path.stem}.json" for path in images}
    if len(set(outs.values())) < len(images):
        raise UserError(f"two of the images have one name, so they would share a file in {out}; give them apart")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file, and {len(images)} images get a folder of files; give a folder")
    return outs


def _json(photo: Photo, person: Person) -> str:
    width, height = photo.size
    keypoints = np.round(person.keypoints.astype(float), 2).tolist()
    scores = np.round(person.scores.astype(float), 4).tolist()
    return json.dumps({"keypoints": keypoints, "scores": scores, "width": width, "height": height}) + "\n"


def _picture(found: list[tuple[Photo, Person]]) -> Image.Image:
    """image | pose, a row an image, all at one size."""
    sizes = [_shown(photo.size) for photo, _ in found]
    width, height = (max(size[axis] for size in sizes) for axis in (0, 1))
    rows: dict[str, list[np.ndarray]] = {"image": [], "pose": []}
    for size, (photo, person) in zip(sizes, found, strict=True):
        image = np.array(Image.fromarray(photo.pixels).resize(size, Image.Resampling.BICUBIC))
        drawn = draw_pose_on(image, rescaled(person.keypoints, photo.size, size))
        for title, one in (("image", image), ("pose", drawn)):
            rows[title].append(np.pad(one, ((0, height - size[1]), (0, width - size[0]), (0, 0)), constant_values=255))
    return grid({title: np.stack(images) for title, images in rows.items()})


def _shown(size: tuple[int, int]) -> tuple[int, int]:
    factor = SHOWN / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


if __name__ == "__main__":
    run(main)
