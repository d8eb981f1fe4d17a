"""Where the embedded runtime keeps everything: one SQLite file, one writer."""
