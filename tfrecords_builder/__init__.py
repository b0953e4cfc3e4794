"""Turns image pairs of any source into TFRecords with a manifest."""
