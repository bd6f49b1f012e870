"""The files of a folder or a manifest: labels, patients and sides, without any pixel."""
