"""A network as a SavedModel: its signatures, what they check and preprocess, and its warm-up requests."""
