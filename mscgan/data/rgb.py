"""A picture of any kind, with 8 bits of red, green and blue."""

import numpy as np
from PIL import Image


def rgb(picture: Image.Image) -> Image.Image:
    """The picture in Pillow's mode RGB, on white where it is transparent: colours under alpha 0 do not show.

    Sixteen bits of grey keep their upper eight, as Pillow does by itself for 16-bit colour; its `convert` would make
    all that is above 255 white.

    Raises:
        ValueError: grey in fractions or in more than sixteen bits, of which nobody says what is white.
    """
    if picture.mode == "F":
        raise ValueError("its grey is in fractions, of which it does not say what is white; save it with 8 or 16 bits")
    if picture.mode.startswith("I"):  # I;16 and its like, and I, in which some formats hold the same numbers
        grey = np.asarray(picture)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise ValueError(f"its grey goes from {grey.min()} to {grey.max()}; save it with 8 or 16 bits")
        shown = np.where(grey == picture.info.get("transparency", -1), 255, grey >> 8)
        picture = Image.fromarray(shown.astype(np.uint8))
    if picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
    return picture.convert("RGB")
