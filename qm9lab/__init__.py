"""qm9lab: a teaching kit on memory-mapped files, with the QM9 molecules as its data.

The package looks at what you opened; it does not open it for you. Import its modules by name,
for instance ``from qm9lab import data, records``; nothing heavy is loaded until it is used.
"""

__version__ = "0.1.0"
