"""Files to files: a module per command, each a function that returns a report.

They join engine, files and models.  Nothing below knows of them; the command table names them.
"""
