"""Protocols for frequencies under local differential privacy, by the name of their file."""
