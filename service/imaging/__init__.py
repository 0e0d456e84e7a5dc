"""From the bytes of a file to the network's input: the same code in training and in serving."""

from service.imaging.decoders import Decoder
from service.imaging.dicom import RADIOGRAPHS, read_header, read_sop_instance_uid
from service.imaging.display import LONGEST_SIDE, Display, Grey, encoded
from service.imaging.elements import Elements
from service.imaging.errors import (
    BlankImageError,
    ColourImageError,
    CorruptImageError,
    DecoderFailedError,
    EmptyImageError,
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    MultiFrameError,
    NoPixelDataError,
    UnrecognisedFormatError,
    UnsupportedImageError,
    UnsupportedPixelFormatError,
    UnsupportedSopClassError,
    UnsupportedTransferSyntaxError,
)
from service.imaging.header import ViewHeader
from service.imaging.loading import load_decoders
from service.imaging.origin import Origin, decoded_text, tidy, valid_uid
from service.imaging.picture import Field
from service.imaging.pixel_data import SUPPORTED
from service.imaging.radiograph import (
    Format,
    Radiograph,
    image_to_tensor,
    read_array,
    read_radiograph,
    sniff,
)
from service.imaging.tensor import Tensor
from service.imaging.uncompressed import is_uncompressed

__all__ = [
    "LONGEST_SIDE",
    "RADIOGRAPHS",
    "SUPPORTED",
    "BlankImageError",
    "ColourImageError",
    "CorruptImageError",
    "Decoder",
    "DecoderFailedError",
    "Display",
    "Elements",
    "EmptyImageError",
    "Field",
    "Format",
    "Grey",
    "ImageError",
    "ImageTooLargeError",
    "ImageTooSmallError",
    "MultiFrameError",
    "NoPixelDataError",
    "Origin",
    "Radiograph",
    "Tensor",
    "UnrecognisedFormatError",
    "UnsupportedImageError",
    "UnsupportedPixelFormatError",
    "UnsupportedSopClassError",
    "UnsupportedTransferSyntaxError",
    "ViewHeader",
    "decoded_text",
    "encoded",
    "image_to_tensor",
    "is_uncompressed",
    "load_decoders",
    "read_array",
    "read_header",
    "read_radiograph",
    "read_sop_instance_uid",
    "sniff",
    "tidy",
    "valid_uid",
]
