"""General utilities: files, weights, random numbers, hashes, progress, timing."""
