"""Speed, as ratios to the plain operation in the same run: `make bench`."""
