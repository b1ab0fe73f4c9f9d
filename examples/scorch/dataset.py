"""Digits in three parts, in the form of a scorch dataset file."""

import os

import numpy
import torch


class DataSetIndex:
    def __init__(self, path):
        digits = numpy.load(os.path.join(path, "digits.npz"))
        self.images = torch.tensor(digits["images"] / 16, dtype=torch.float32)
        self.labels = torch.tensor(digits["labels"])
        order = numpy.random.default_rng(0).permutation(len(self.labels))
        self.rows = {"train": order[:1200], "valid": order[1200:1500], "test": order[1500:]}


class DataSet:
    def __init__(self, ds_index, mode="train"):
        self.ds_index = ds_index
        self.mode = mode

    def __len__(self):
        return len(self.ds_index.rows[self.mode])

    def __getitem__(self, index):
        row = self.ds_index.rows[self.mode][index]
        return [self.ds_index.images[row]], [self.ds_index.labels[row]]
