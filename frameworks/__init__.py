"""Adapters for the frameworks that users train in; none is imported before it is used."""
