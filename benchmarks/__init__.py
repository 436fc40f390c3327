"""Every figure that the documents quote, one command each.

Covers: measuring beside peers in the same run, and printing. `python -m benchmarks` lists them.
Does not cover: whether results are right (tests).
"""
