"""What a notebook shows: progress bars and, later, panels and plots."""
