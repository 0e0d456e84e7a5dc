"""The plain stack: FastAPI, pydicom, Pillow and ONNX Runtime, an image at a time, all at defaults.

    RIVAL_MODEL=model.onnx RIVAL_SIZE=256 uvicorn --app-dir benchmarks/rivals plain:app

It takes the raw body, which costs it less than a form with a file would.
"""

import os
from typing import Annotated

import onnxruntime
from fastapi import Body, FastAPI
from reading import read

SIZE = int(os.environ["RIVAL_SIZE"])

app = FastAPI()
session = onnxruntime.InferenceSession(os.environ["RIVAL_MODEL"])


@app.get("/health")
def health() -> str:
    """Ready when it answers."""
    return "ok"


@app.post("/predict")
def predict(body: Annotated[bytes, Body(media_type="application/octet-stream")]) -> dict:
    """The PFI; FastAPI runs this in its thread pool, as it is no coroutine."""
    (pfi,) = session.run(["pfi"], {"tensors": read(body, SIZE)[None]})
    return {"pfi": float(pfi[0])}
