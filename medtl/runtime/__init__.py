"""Where a run computes and what it writes: processes, devices, files, downloads, its log."""
