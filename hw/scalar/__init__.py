"""What is done once a step, on scalars: roots, quotients, and the law that makes a step size of two energies.

Imports cells and golden.
"""
