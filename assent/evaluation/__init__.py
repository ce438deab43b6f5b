"""What `evaluate` and `arena` share: candidates, judges, win rates."""
