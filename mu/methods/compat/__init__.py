"""Variants that reproduce quirks of released code where a quirk moves a published number."""
