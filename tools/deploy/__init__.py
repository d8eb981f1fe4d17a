"""The checks of deploy/: that the files are well formed, and that they agree with one another and with the code."""
