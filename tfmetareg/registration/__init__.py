"""From two images to a displacement: inputs, compiled network, warnings, result files."""
