"""Mutated files of every kind that medtl reads, and what its sources make of them (`make fuzz`).

A file may be read as if nothing had happened, or be refused in words. It may never end in a
traceback, hang, fill the memory, or give other values without a word.
"""
