"""What is measured: each module is a worker process of its own, in its own environment."""
