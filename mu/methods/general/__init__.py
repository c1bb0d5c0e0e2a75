"""Methods for any backbone."""
