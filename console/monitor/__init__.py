"""What is going on: snapshots turned into rates, states and findings, and the live feed. Never imports Textual."""
