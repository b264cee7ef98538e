"""Unlearning methods, one readable file each; a method's name is its file's name."""
