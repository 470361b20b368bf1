"""The command line: tace-al."""
