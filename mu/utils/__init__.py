"""Tools that know nothing of unlearning: files, weights, random numbers, hashes, progress."""
