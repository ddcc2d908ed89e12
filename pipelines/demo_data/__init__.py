"""Real-image demo data, drawn from what the installed packages ship: no download, nothing in the repository."""
