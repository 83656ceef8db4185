"""What is promised when things go wrong, row by row of `rows.py`: faults are made, and what follows is checked."""
