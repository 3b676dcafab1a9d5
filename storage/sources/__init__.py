"""Readers of source formats: files to blocks of images, labels and ids."""
