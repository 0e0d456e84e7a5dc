"""What a machine may lack, and how to get it: the reasons of skipped tests.

Each begins with "needs", so that conftest.py can add them up at the end of a run.
"""

from __future__ import annotations

RADIOGRAPHS = "needs radiographs that cannot be redistributed: set CXRVIEW_SHARED to their folder"
TOOLS = "needs tools: run .ci/tools FOLDER, then set CXRVIEW_TOOLS=FOLDER"
DEV = "needs the extra `dev`: pip install --constraint constraints.txt --editable '.[dev]'"
CHROMIUM = (
    "needs tools with Chromium: install Debian's package chromium, or run .ci/tools FOLDER, then "
    "set CXRVIEW_TOOLS=FOLDER"
)
COMPILER = "needs a C compiler: install Debian's package gcc"
MOUNTS = "needs root, who may mount a disk"
NOT_ROOT = "needs a user other than root, who may read everything"
LINUX = "needs Linux"
GLIBC = "needs the GNU C library"
OPENJPEG = "needs a wheel of Pillow that holds OpenJPEG"
GO = "needs the Go toolchain"
CURL = "needs curl: install Debian's package curl"
