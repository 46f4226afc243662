"""The Agent2Agent protocol: tasks that are sessions, cards that are agents, and who is told."""
