"""The command line: `mu fit | test | bench | report | export | import | list | show`."""
