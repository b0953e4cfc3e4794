"""Records: their schema, reading, tasks for meta-learning, augmentation."""
