"""Devices, precision, upstream fixes, files and waiting: all that depends on the machine."""
