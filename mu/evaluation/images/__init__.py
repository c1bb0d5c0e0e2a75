"""Drawn images, their judges and features."""
