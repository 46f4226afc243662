"""What all seven services need and none owns; knows no service."""
