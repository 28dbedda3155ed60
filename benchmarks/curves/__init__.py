"""Gain against the number of views, for SRT and every rival, on a model and its own test data.

    python -m benchmarks.curves CONFIG CHECKPOINT --complete replicate --out DIR

All rows of an image are run together, and what the backbone returned is remembered by its input
until the image is done: no view is run twice, whatever row asks for it.
"""
