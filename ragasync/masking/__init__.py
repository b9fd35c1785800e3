"""What looks like a secret is taken out of what is said of errors."""
