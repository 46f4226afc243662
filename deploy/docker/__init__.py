"""The image and what it is asked by."""
