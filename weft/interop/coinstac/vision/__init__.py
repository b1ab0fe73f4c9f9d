"""Drawing under the name of the original's package. Its helpers for images are not part of it."""
