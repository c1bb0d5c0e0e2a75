"""Components from plain configuration: classes, plugins, merging."""
