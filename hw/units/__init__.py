"""Whole throttle units with streams for ports: the core in two passes and in one, with its memories and without, and shards.

Imports cells, lanes, scalar and golden.
"""
