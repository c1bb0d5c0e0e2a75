"""Invented authors: questions, answers, a small language model."""
