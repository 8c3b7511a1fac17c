"""What only lesson 00 needs."""
