"""Readers of the file formats, one each: `read(path)` gives an `Image`. Use `imaging.read.open_image`."""
