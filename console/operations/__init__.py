"""What an operator does: selection, plan, job, result. Never imports Textual; screen and command line use the same."""
