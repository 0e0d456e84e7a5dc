"""cxrview: frontal or lateral, from the pixels of a chest radiograph."""

import os

# ONNX Runtime would record its use in a database in the user's home, with an identifier of this
# machine, and has an Internet address to send it to. Its own API to disable that applies too late
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
