"""Sums that lose nothing: numbers as whole-number limbs that participants can add up in any order.

Variance and correlation are differences of large sums; added as floats, the sums of participants with large means would
lose the difference. As limbs (int64, base 2**30) they add exactly, and the difference is taken in rational arithmetic.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy

from weft.metrics.formulas import Array

BITS = 30  # per limb: 2**33 participants can be added before an int64 overflows
BELOW = 300  # binary digits kept below the point
LIMBS = 20
LARGEST = float(2 ** (BITS * LIMBS - BELOW - 1))


def to_limbs(number: Fraction) -> list[int]:
    """The number times 2**300 as limbs, lowest first; all limbs carry its sign. Larger than 2**299 is an
    OverflowError."""
    whole = (number.numerator << BELOW) // number.denominator
    sign, whole = (-1, -whole) if whole < 0 else (1, whole)
    if whole >> (BITS * LIMBS):
        raise OverflowError(f"{float(number)} is too large to be summed exactly")
    mask = (1 << BITS) - 1
    return [sign * ((whole >> (BITS * index)) & mask) for index in range(LIMBS)]


def from_limbs(limbs: Array) -> Fraction:
    """The number that limbs (or a sum of limbs) stand for."""
    return Fraction(sum(int(limb) << (BITS * index) for index, limb in enumerate(limbs)), 1 << BELOW)


def summable(number: float) -> bool:
    """Whether a float is finite and small enough."""
    return math.isfinite(number) and abs(number) < LARGEST


def root(number: Fraction) -> float:
    """Square root as a float."""
    return math.sqrt(float(number)) if number > 0 else 0.0


def zeros(*shape: int) -> Array:
    """Limbs of zeros."""
    return numpy.zeros((*shape, LIMBS), numpy.int64)
