"""What a network, an alignment or a classical method is worth on a split: measures and results."""
