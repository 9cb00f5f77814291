"""What a person at a terminal sees, and what helps when something is wrong there."""
