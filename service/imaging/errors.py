"""Why an image was refused. Each class has one stable `code`; messages hold no attribute of a
patient, so they may be logged and shown.
"""

from typing import ClassVar


class ImageError(Exception):
    """This file cannot be classified; the others can."""

    code: ClassVar[str] = "image_error"


class EmptyImageError(ImageError):
    """There are no bytes."""

    code = "empty_image"


class UnrecognisedFormatError(ImageError):
    """Neither DICOM, PNG, JPEG, JPEG-LS, JPEG 2000 nor TIFF, by content."""

    code = "unrecognised_format"


class CorruptImageError(ImageError):
    """Truncated, or it contradicts itself."""

    code = "corrupt_image"


class NoPixelDataError(ImageError):
    """A DICOM object without Pixel Data."""

    code = "no_pixel_data"


class ImageTooSmallError(ImageError):
    """Too few pixels to show a thorax."""

    code = "image_too_small"


class ImageTooLargeError(ImageError):
    """It declares more pixels than any radiograph has; refused before it is decoded."""

    code = "image_too_large"


class BlankImageError(ImageError):
    """Every pixel has the same value."""

    code = "blank_image"


class UnsupportedImageError(ImageError):
    """A valid image that is no radiograph the model was trained on, or that no decoder reads."""

    code = "unsupported_image"


class UnsupportedSopClassError(UnsupportedImageError):
    """A DICOM object that is neither CR, DX nor Secondary Capture."""

    code = "unsupported_sop_class"


class UnsupportedTransferSyntaxError(UnsupportedImageError):
    """A DICOM transfer syntax, or a compression of JPEG or TIFF, without a decoder here."""

    code = "unsupported_transfer_syntax"


class UnsupportedPixelFormatError(UnsupportedImageError):
    """Bits Allocated, Samples per Pixel or a data type that no radiograph uses."""

    code = "unsupported_pixel_format"


class ColourImageError(UnsupportedImageError):
    """The channels differ: a photograph, a colour map, an ultrasound screen."""

    code = "colour_image"


class MultiFrameError(UnsupportedImageError):
    """More than one frame."""

    code = "multi_frame_image"


class DecoderFailedError(ImageError):
    """Its decoder crashed, took too long or needed too much memory; it was stopped."""

    code = "decoder_failed"
