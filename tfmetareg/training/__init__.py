"""Losses, optimizers, gradient steps, Reptile, and the loop that runs them."""
