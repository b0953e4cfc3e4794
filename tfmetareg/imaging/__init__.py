"""Images as pixels and a grid: reading, writing, preprocessing, and the tables that name them."""
