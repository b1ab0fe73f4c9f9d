"""Writes digits.npz, 1,797 images of 8 × 8 pixels with their labels, into a folder: python make_digits.py FOLDER"""

import sys
from pathlib import Path

import numpy
from sklearn.datasets import load_digits

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
images, labels = load_digits(return_X_y=True)
numpy.savez(folder / "digits.npz", images=images, labels=labels)
