"""Array kernels: pure functions over Arrow and NumPy arrays, without a Python loop over rows."""
