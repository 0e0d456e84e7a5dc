#!/bin/sh
# What mercure starts. It sets the two variables
exec python3 module.py "$MERCURE_IN_DIR" "$MERCURE_OUT_DIR"
