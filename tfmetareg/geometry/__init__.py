"""What carries points or pixels: alignments, displacements, warps."""
