"""Errors of images. Each class has one stable `code`. Messages hold no data of a patient, so they
may be logged and shown.
"""

from typing import ClassVar


class ImageError(Exception):
    """The base class: this file cannot be classified."""

    code: ClassVar[str] = "image_error"


class EmptyImageError(ImageError):
    """The file has no bytes."""

    code = "empty_image"


class UnrecognisedFormatError(ImageError):
    """The content is neither DICOM, PNG, JPEG, JPEG-LS, JPEG 2000 nor TIFF."""

    code = "unrecognised_format"


class CorruptImageError(ImageError):
    """The file is truncated or damaged, or its attributes contradict each other."""

    code = "corrupt_image"


class NoPixelDataError(ImageError):
    """The DICOM object has no Pixel Data."""

    code = "no_pixel_data"


class ImageTooSmallError(ImageError):
    """The image has too few pixels to show a thorax."""

    code = "image_too_small"


class ImageTooLargeError(ImageError):
    """The image declares more pixels than any radiograph has; it is not decoded."""

    code = "image_too_large"


class BlankImageError(ImageError):
    """Every pixel, or nearly every one, has the same value."""

    code = "blank_image"


class UnsupportedImageError(ImageError):
    """A valid image without a decoder here, or unlike the radiographs of the training data."""

    code = "unsupported_image"


class UnsupportedSopClassError(UnsupportedImageError):
    """The DICOM object is neither CR, DX nor Secondary Capture."""

    code = "unsupported_sop_class"


class UnsupportedTransferSyntaxError(UnsupportedImageError):
    """There is no decoder here for the DICOM transfer syntax, or for the form of JPEG or TIFF."""

    code = "unsupported_transfer_syntax"


class UnsupportedPixelFormatError(UnsupportedImageError):
    """Bits Allocated, Samples per Pixel or the data type are not those of a radiograph."""

    code = "unsupported_pixel_format"


class ColourImageError(UnsupportedImageError):
    """The channels differ: a photograph, a colour map, an ultrasound screen."""

    code = "colour_image"


class MultiFrameError(UnsupportedImageError):
    """The file has more than one frame or picture."""

    code = "multi_frame_image"


class DecoderFailedError(ImageError):
    """The decoder crashed, took too long or needed too much memory, and was ended."""

    code = "decoder_failed"
