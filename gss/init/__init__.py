"""The first hour with own data: look at a folder, decide, write an experiment."""
