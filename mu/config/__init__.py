"""Configuration: classes by name, argument types, plugins, merging, building components."""
