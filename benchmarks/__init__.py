"""Measurements of Weft beside loops that other people write. Run `python benchmarks/loop.py --help`."""
