"""What takes several stages: the comparison of the paper, the curve over pairs, the study of schedules."""
