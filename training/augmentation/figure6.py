"""The transformations of the paper's Figure 6, made on the image itself, before preprocessing."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from training.augmentation.image_files import Change, Grey


def text_label(image: Grey) -> Grey:
    """White words on the image, an eighth of its height."""
    labelled = image.copy()
    font = ImageFont.load_default(size=max(10, image.height // 8))
    ImageDraw.Draw(labelled).text((image.width // 20, image.height // 20), "PORTABLE", 255, font)
    return labelled


def rotated(image: Grey) -> Grey:
    """Rotated by 45 degrees and zoomed 1.5 times about its centre, in the same frame."""
    width, height = image.size
    zoomed = image.resize((round(width * 1.5), round(height * 1.5)), Image.Resampling.BILINEAR)
    turned = zoomed.rotate(45, Image.Resampling.BILINEAR)
    left, top = (turned.width - width) // 2, (turned.height - height) // 2
    return turned.crop((left, top, left + width, top + height))


def top_half_hidden(image: Grey) -> Grey:
    """The upper half black."""
    hidden = image.copy()
    hidden.paste(0, (0, 0, image.width, image.height // 2))
    return hidden


def top_left_crop(image: Grey) -> Grey:
    """The top left quarter: half the width, half the height."""
    return image.crop((0, 0, image.width // 2, image.height // 2))


FIGURE_6: dict[str, Change] = {
    "text label": text_label,
    "rotated 45 degrees, zoom 1.5": rotated,
    "top half hidden": top_half_hidden,
    "top left crop": top_left_crop,
}
