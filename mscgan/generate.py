"""Makes pictures with a trained run: `python -m mscgan.generate --run RUN ...`

    --image a.jpg --keypoints b.json [--out FILE.png]    the person of a.jpg in the pose of b.json, as the last stage
                                                         makes it (mscgan/user_inputs.py: which images and poses)
    --pairs 8 [--split test] [--data DIR] [--out ...]    source | target pose | stage by stage | target, for pairs
                                                         spread evenly over the split's pair table
Prints the path of the PNG. Runs on the CUDA device where there is one.
"""

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image

from mscgan import trained
from mscgan.checks import check_makes_images, check_place
from mscgan.data.read import choose_pairs, open_shards
from mscgan.errors import UserError, run
from mscgan.pictures import save_png, to_uint8
from mscgan.user_inputs import read_image, read_pose


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mscgan.generate", description="Makes pictures with a trained run.")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--image", type=Path, help="a JPEG or PNG of a person")
    parser.add_argument("--keypoints", help="the pose to take: a file, or the text itself")
    parser.add_argument("--pairs", type=int, help="make a grid of so many pairs of the shards instead")
    parser.add_argument("--split", default="test", help="of which split the pairs are")
    parser.add_argument("--data", default="", help="shards to use instead of the run's data.root")
    parser.add_argument("--out", type=Path, help="the PNG to write; a file in the run's folder by default")
    options = parser.parse_args()
    if (options.pairs is None) == (options.image is None) or (options.image is None) != (options.keypoints is None):
        raise UserError("give --image with --keypoints, or --pairs alone")
    if options.out and options.out.suffix.lower() != ".png":
        raise UserError(f"--out {options.out}: pictures are written as PNG; give a name that ends with .png")
    torch.backends.cudnn.deterministic = True  # the same command, the same picture

    # What can be refused is refused before the networks are built.
    config = trained.read_config(options.run)
    data = config.data
    if options.image is not None:
        check_makes_images(options.run, config)
    name = f"pairs-{options.split}.png" if options.image is None else f"{options.image.stem}-in-new-pose.png"
    out = options.out or options.run / name
    check_place(out, "--out")
    if options.image is None:
        shards = open_shards(data, options.split, options.data)
        choose_pairs(shards, options.pairs)
    else:
        x, note = read_image(options.image, data.height, data.width)
        keypoints = read_pose(options.keypoints, data.height, data.width)
        if note:
            print(note, file=sys.stderr)

    model = trained.load(options.run)
    if options.image is None:
        picture = trained.sample_grid(model, shards, options.pairs)
    else:
        *_, answer = model.images(torch.from_numpy(x)[None], torch.from_numpy(keypoints)[None]).values()
        picture = Image.fromarray(to_uint8(answer)[0])
    try:
        save_png(picture, out)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}); give another file with --out") from error
    print(out)


if __name__ == "__main__":
    run(main)
