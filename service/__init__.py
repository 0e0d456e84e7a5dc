"""cxrview: frontal or lateral, from the pixels of a chest radiograph."""

import os

# ONNX Runtime would note each use in a database in the user's home, with an identifier of this
# machine, and knows an address on the Internet for it. Its own switch for that comes too late
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
