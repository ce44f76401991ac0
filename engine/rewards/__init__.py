"""What an answer is worth: rule-based rewards, and the processes in which answers are judged."""
