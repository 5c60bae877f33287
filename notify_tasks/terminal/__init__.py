"""What the command line and the demo share: a terminal to write to, and how states, times and timelines look."""
