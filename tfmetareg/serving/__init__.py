"""A network as a SavedModel: signatures with their checks and preprocessing, and warm-up requests."""
