"""Sparse matrices in compiled code: rows, products, ridge regressions and singular values."""
