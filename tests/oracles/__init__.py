"""Independent answers: plain loops and closed forms, which share no code with what they check."""
