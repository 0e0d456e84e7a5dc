"""The attributes of a DICOM object that are read; all others are skipped.

References:
    PS3.6 Registry of DICOM Data Elements, by keyword.
"""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword

WANTED = {
    tag_for_keyword(keyword): keyword
    for keyword in (
        "TransferSyntaxUID",
        "MediaStorageSOPClassUID",
        "SOPClassUID",
        "SOPInstanceUID",
        "ViewPosition",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
        "RescaleIntercept",
        "RescaleSlope",
        "PresentationLUTShape",
        "PlanarConfiguration",
    )
}
# Attributes that the pixels do not depend on: invalid values do not refuse the image
TOLD = {
    tag_for_keyword(keyword): keyword
    for keyword in (
        "SpecificCharacterSet",
        "StudyDate",
        "AcquisitionDate",
        "ContentDate",
        "Modality",
        "BodyPartExamined",
        "StationName",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "PatientOrientation",
        "ViewCodeSequence",
        "ShutterShape",
        "ShutterLeftVerticalEdge",
        "ShutterRightVerticalEdge",
        "ShutterUpperHorizontalEdge",
        "ShutterLowerHorizontalEdge",
        "CenterOfCircularShutter",
        "RadiusOfCircularShutter",
        "VerticesOfThePolygonalShutter",
        "SeriesDescription",
        "ProtocolName",
        "AcquisitionDeviceProcessingDescription",
        "StudyDescription",
    )
}
KEPT = WANTED | TOLD
CODE = {
    tag_for_keyword(keyword): keyword
    for keyword in ("CodeValue", "CodingSchemeDesignator", "LongCodeValue")
}
LAST_OF_CODE = max(tag for tag in CODE if tag)
SEQUENCES = {tag_for_keyword("ViewCodeSequence")}
LUT = {tag_for_keyword(keyword): keyword for keyword in ("LUTDescriptor", "LUTData")}
LAST_OF_LUT = max(tag for tag in LUT if tag)
PALETTES = {
    tag_for_keyword(keyword): keyword
    for colour in ("Red", "Green", "Blue")
    for keyword in (
        f"{colour}PaletteColorLookupTableDescriptor",
        f"{colour}PaletteColorLookupTableData",
        f"Segmented{colour}PaletteColorLookupTableData",
    )
}
MODALITY_LUT = tag_for_keyword("ModalityLUTSequence")
PIXELS = {
    tag_for_keyword(keyword) for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
}
PIXEL_DATA = tag_for_keyword("PixelData")
