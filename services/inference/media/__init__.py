"""Pictures, speech and transcripts."""
