"""What radiographs meet on their way, one at a time and strongly: a test of what a model bears."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from service.imaging.tensor import MIN_SIDE
from training.augmentation.image_files import Change, Grey

NOISE = 25.0  # grey levels, the standard deviation
BLUR = 0.012  # of the longer side, the radius
QUALITY = 10  # of the JPEG
LEAN = 0.2  # of the width: how far the upper corners of a picture taken obliquely move inwards


def turned(image: Grey, degrees: float) -> Grey:
    """Turned clockwise, whole, with black corners."""
    return image.rotate(-degrees, Image.Resampling.BILINEAR, expand=True)


def with_gamma(image: Grey, gamma: float) -> Grey:
    """Each grey level g becomes g ** gamma, of 0..1."""
    return image.point([round(255 * (level / 255) ** gamma) for level in range(256)])


def noisy(image: Grey) -> Grey:
    """With white noise, always the same."""
    noise = np.random.default_rng(0).normal(0, NOISE, (image.height, image.width))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def blurred(image: Grey) -> Grey:
    """Out of focus."""
    return image.filter(ImageFilter.GaussianBlur(BLUR * max(image.size)))


def compressed(image: Grey) -> Grey:
    """As a JPEG of low quality."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return Image.open(file).convert("L")


def thumbnail(image: Grey, side: int = 64) -> Grey:
    """As an original whose longer side has 64 pixels."""
    scale = side / max(image.size)
    width, height = (max(MIN_SIDE, round(scale * each)) for each in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def flat(image: Grey, share: float = 0.2) -> Grey:
    """A fifth of the contrast, about the middle grey."""
    return image.point([round(128 + share * (level - 128)) for level in range(256)])


def framed(image: Grey, share: float, level: int) -> Grey:
    """In a frame as wide as this share of each side."""
    width, height = (round(share * each) for each in image.size)
    return ImageOps.expand(image, (width, height, width, height), level)


def letterboxed(image: Grey) -> Grey:
    """Twice as wide as high, with black beside the picture."""
    longer = max(image.size)
    boxed = Image.new("L", (2 * longer, longer))
    boxed.paste(image, (longer - image.width // 2, (longer - image.height) // 2))
    return boxed


def central(image: Grey, share: float = 0.7) -> Grey:
    """The middle: this share of each side."""
    left, top = (round((1 - share) / 2 * each) for each in image.size)
    return image.crop((left, top, image.width - left, image.height - top))


def oblique(image: Grey) -> Grey:
    """As photographed from below: the upper edge is shorter."""
    width, height = image.size
    inset = LEAN * width
    corners = (-inset, 0, 0, height, width, height, width + inset, 0)
    quad = Image.Transform.QUAD
    return image.transform(image.size, quad, corners, Image.Resampling.BILINEAR)


def collimated(image: Grey) -> Grey:
    """A tilted field, black outside."""
    width, height = image.size
    mask = Image.new("L", image.size)
    field = [(0.15, 0.05), (0.95, 0.12), (0.87, 0.95), (0.07, 0.88)]
    ImageDraw.Draw(mask).polygon([(x * width, y * height) for x, y in field], fill=255)
    return Image.composite(image, Image.new("L", image.size), mask)


def marked(image: Grey) -> Grey:
    """White plates and bars: a side marker, a name plate, a ruler at the edge."""
    marked = image.copy()
    width, height = image.size
    draw = ImageDraw.Draw(marked)
    for left, top, right, bottom in (
        (0.04, 0.05, 0.14, 0.17),
        (0.6, 0.9, 0.98, 0.98),
        (0.96, 0.1, 1.0, 0.8),
    ):
        box = (left * width, top * height, right * width - 1, bottom * height - 1)
        draw.rectangle(box, fill=255)
    return marked


def lower_half(image: Grey) -> Grey:
    """The lower half alone."""
    return image.crop((0, image.height // 2, image.width, image.height))


def left_half(image: Grey) -> Grey:
    """The left half alone."""
    return image.crop((0, 0, image.width // 2, image.height))


CORRUPTIONS: dict[str, Change] = {
    **{f"turned by {d} degrees": partial(turned, degrees=d) for d in (15, 90, 180, 270)},
    "left and right swapped": ImageOps.mirror,
    "top and bottom swapped": ImageOps.flip,
    "inverted": ImageOps.invert,
    "gamma 0.4": partial(with_gamma, gamma=0.4),
    "gamma 2.5": partial(with_gamma, gamma=2.5),
    "noise": noisy,
    "blur": blurred,
    "JPEG quality 10": compressed,
    "64-pixel original": thumbnail,
    "a fifth of the contrast": flat,
    "white border of 15 %": partial(framed, share=0.15, level=255),
    "black border of 30 %": partial(framed, share=0.3, level=0),
    "letterbox 2:1": letterboxed,
    "crop to 70 %": central,
    "perspective": oblique,
    "collimation": collimated,
    "white markers and bars": marked,
    "bottom half": lower_half,
    "left half": left_half,
}
