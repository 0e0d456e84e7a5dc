"""Frontal or lateral: the view of chest radiographs, from their pixels.

    from cxrview import Classifier

    with Classifier() as classifier:
        print(classifier.classify("image.dcm").view)
        frame = classifier.classify_many(["folder"], progress=True).to_frame()

`Classifier` works in this process; `Client` and `AsyncClient` ask a running service.
"""

from cxrview.answers import ServiceError
from cxrview.classifier import Classifier
from cxrview.client import AsyncClient, Client
from cxrview.results import Result, Results
from cxrview.sources import Source
from service.imaging import ImageError
from service.inference import Classification, PredictionError

__all__ = [
    "AsyncClient",
    "Classification",
    "Classifier",
    "Client",
    "ImageError",
    "PredictionError",
    "Result",
    "Results",
    "ServiceError",
    "Source",
]
