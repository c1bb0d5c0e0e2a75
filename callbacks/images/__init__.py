"""Suites on drawn images."""
