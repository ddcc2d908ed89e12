"""The demo data: real images and labels made from what the installed packages ship, without a download."""
