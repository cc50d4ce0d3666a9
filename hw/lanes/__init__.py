"""What is done to each element of a vector, L elements a cycle: updates, rounding, squares and their sum, counters.

Imports cells and golden.
"""
