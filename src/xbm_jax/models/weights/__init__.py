"""Pretrained weights: files, and the names that other libraries give to arrays."""
