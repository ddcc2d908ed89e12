"""The HTML report: what is read of a work directory, and the page made of it."""
