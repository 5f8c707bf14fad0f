"""One HTML file of a run, a bank or a results file: opened without server or network, safe whatever names are in it."""
