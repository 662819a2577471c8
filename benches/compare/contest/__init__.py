"""The comparison: cells of contestants that take turns, and what is made of their numbers."""
