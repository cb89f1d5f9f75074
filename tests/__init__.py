"""Ours: torch-fidelity installs a package of this name, which comes before a folder without this file."""
